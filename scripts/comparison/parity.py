"""The comparison of scripts/parity: coco_mini, the hostile corpus, and mutated photographs, on both sides one image at a time."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
MODELS = (
    "starter",
    "PP-LCNet_x1_0_ML",
    "PP-HGNetV2-B0_ML",
    "PP-HGNetV2-B4_ML",
    "PP-HGNetV2-B6_ML",
    "ResNet50_ML",
    "CLIP_vit_base_patch16_448_ML",
)
NAMED = "PP-LCNet_x1_0_ML"
"""PaddleX loads a folder only under a name that it knows: a copy of the starter says this one."""
MUTATED = 300
THRESHOLD = 0.5
TOLERANCE = 1e-4


def corpus(work: Path, limit: int) -> list[str]:
    """Paths that have a regular file's name, sorted."""
    from tests.hostile_corpus import write_corpus

    photographs = sorted((ROOT.parent / "shared/data/coco_mini/images").glob("*.jpg"))
    if not photographs:
        print("../shared is absent: the demo photographs stand in for coco_mini", file=sys.stderr)
        photographs = sorted((ROOT / "mlcls_ray/demo").glob("*.jpg"))
    hostile = work / "hostile"
    if not hostile.exists():
        write_corpus(hostile)
    mutated = work / "mutated"
    if not mutated.exists():
        mutated.mkdir()
        random = np.random.default_rng(0)
        for number in range(MUTATED):
            data = bytearray(photographs[number % len(photographs)].read_bytes())
            for _ in range(int(random.integers(1, 6))):
                data[int(random.integers(2, len(data)))] = int(random.integers(0, 256))
            (mutated / f"{number:03}.jpg").write_bytes(data)
    kinds = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
    odd = [
        path for path in hostile.rglob("*") if path.is_file() and not path.is_symlink() and path.suffix.lower() in kinds
    ]
    found = [*photographs[: limit or None], *sorted(odd), *sorted(mutated.glob("*.jpg"))[: limit or None]]
    texts = [str(path) for path in found]
    return [text for text in texts if text.isprintable() and text.isascii()]


def folder_of(name: str, work: Path) -> Path:
    from mlcls_ray.models.convert.export import export_untrained

    from mlcls_ray.models.zoo import STARTER_FOLDER

    folder = work / "models" / name
    if name == "starter" and not folder.exists():
        shutil.copytree(STARTER_FOLDER, folder)
        config = yaml.safe_load((folder / "inference.yml").read_text())
        config["Global"]["model_name"] = NAMED
        (folder / "inference.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    elif not folder.exists():
        export_untrained(name, folder, seed=7)
    return folder


def theirs(folder: Path, paths: list[str], work: Path) -> dict[str, dict]:
    listed, out = work / "paths", work / f"{folder.name}.paddlex.jsonl"
    listed.write_text("\0".join(paths))
    subprocess.run(
        [ROOT / ".venv-paddlex/bin/python", ROOT / "scripts/comparison/parity_paddlex.py", folder, listed, out],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=(work / f"{folder.name}.paddlex.log").open("w"),
    )
    return {told["path"]: told for told in map(json.loads, out.read_text().splitlines())}


def ours(folder: Path, paths: list[str]) -> dict[str, dict]:
    from mlcls_ray import create_pipeline

    pipeline = create_pipeline(model=folder, threshold=0.0)
    told = {}
    for path in paths:
        result = next(iter(pipeline.predict(path, on_error="return")))
        if result["error"]:
            told[path] = {"error": result["error"]}
        else:
            scores = zip(result["class_ids"], result["scores"], strict=True)
            told[path] = {"scores": {str(one): score for one, score in scores}}
    return told


def compare(name: str, expected: dict[str, dict], found: dict[str, dict]) -> dict:
    """Counts, the largest difference, and each image that differs."""
    both, same, largest, differences = 0, 0, 0.0, []
    for path, told in expected.items():
        mine = found[path]
        if ("error" in told) != ("error" in mine):
            differences.append(
                {"path": path, "paddlex": told.get("error", "labels"), "ours": mine.get("error", "labels")}
            )
        elif "scores" in told:
            both += 1
            classes = told["scores"].keys() | mine["scores"].keys()
            difference = max(abs(told["scores"].get(one, 0.0) - mine["scores"].get(one, 0.0)) for one in classes)
            labels = [{one for one, score in side["scores"].items() if score > THRESHOLD} for side in (told, mine)]
            same += labels[0] == labels[1]
            largest = max(largest, difference)
            if difference > TOLERANCE or labels[0] != labels[1]:
                differences.append(
                    {"path": path, "difference": round(difference, 5), "labels": sorted(labels[0] ^ labels[1], key=int)}
                )
    return {
        "model": name,
        "images": len(expected),
        "scored_by_both": both,
        "same_labels_percent": round(100 * same / max(both, 1), 2),
        "largest_difference": round(largest, 6),
        "refused_by_one": sum("paddlex" in one for one in differences),
        "differences": differences,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--images", type=int, default=0, help="of coco_mini and of the mutated ones; 0: all")
    parser.add_argument("--work", type=Path, default=ROOT / "results/parity")
    told = parser.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    paths = corpus(told.work, told.images)
    print("| model | scored by both | same labels | largest difference | refused by one side | s PaddleX | s ours |")
    print("|---|---|---|---|---|---|---|")
    for name in told.models:
        folder = folder_of(name, told.work)
        began = time.monotonic()
        expected = theirs(folder, paths, told.work)
        between = time.monotonic()
        found = ours(folder, paths)
        after = time.monotonic()
        result = compare(name, expected, found)
        (told.work / f"{name}.json").write_text(json.dumps(result, indent=1))
        print(
            f"| {name} | {result['scored_by_both']} of {result['images']} | {result['same_labels_percent']} % | "
            f"{result['largest_difference']:.1e} | {result['refused_by_one']} | {between - began:.0f} | {after - between:.0f} |",
            flush=True,
        )
        for one in result["differences"]:
            print(f"  {json.dumps(one)}", file=sys.stderr)


if __name__ == "__main__":
    main()

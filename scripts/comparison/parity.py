"""Label coco_mini, the hostile corpus and mutated photographs with PaddleX and with mlcls_ray, one image at a time, and compare."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlcls_ray.registry import NETWORKS

ROOT = Path(__file__).resolve().parents[2]
MODELS = tuple(NETWORKS)
ALIAS = "PP-LCNet_x1_0_ML"
"""PaddleX loads a folder only under a name that it knows, so a copy of the starter gets this one."""
MUTATED = 300
THRESHOLD = 0.5
TOLERANCE = 1e-4
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}

Outcome = dict[str, Any]
"""What one side makes of an image: `scores` by class id, or `error`."""


def make_corpus(work: Path, limit: int) -> list[str]:
    """Make the images, and return the paths whose names PaddleX can open. `limit`: of the photographs and the mutated ones; 0: all."""
    photographs = sorted((ROOT.parent / "shared/data/coco_mini/images").glob("*.jpg"))
    if not photographs:
        print("../shared is absent: the demo photographs replace coco_mini", file=sys.stderr)
        photographs = sorted((ROOT / "mlcls_ray/demo").glob("*.jpg"))
    hostile, mutated = work / "hostile", work / "mutated"
    if not hostile.exists():
        subprocess.run([ROOT / "scripts/hostile_corpus", hostile], check=True, stdout=subprocess.DEVNULL)
    if not mutated.exists():
        mutate(photographs, mutated)
    images = [path for path in hostile.rglob("*") if path.suffix.lower() in SUFFIXES]
    regular = sorted(path for path in images if path.is_file() and not path.is_symlink())
    paths = [*photographs[: limit or None], *regular, *sorted(mutated.glob("*.jpg"))[: limit or None]]
    return [str(path) for path in paths if str(path).isprintable() and str(path).isascii()]


def mutate(photographs: list[Path], folder: Path) -> None:
    """Write photographs with one to five bytes changed."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(MUTATED):
        data = bytearray(photographs[number % len(photographs)].read_bytes())
        for _ in range(int(random.integers(1, 6))):
            data[int(random.integers(2, len(data)))] = int(random.integers(0, 256))
        (folder / f"{number:03}.jpg").write_bytes(data)


def make_model(name: str, work: Path) -> Path:
    """Return a model folder that both sides open: a copy of the starter, or a network with random weights."""
    from mlcls_ray.engines.export import export_untrained
    from mlcls_ray.models.zoo import STARTER, STARTER_FOLDER

    folder = work / "models" / name
    if name == STARTER and not folder.exists():
        shutil.copytree(STARTER_FOLDER, folder)
        config = yaml.safe_load((folder / "inference.yml").read_text())
        config["Global"]["model_name"] = ALIAS
        (folder / "inference.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    elif not folder.exists():
        export_untrained(name, folder, seed=7)
    return folder


def label_with_paddlex(folder: Path, paths: list[str], work: Path) -> dict[str, Outcome]:
    listing, out = work / "paths", work / f"{folder.name}.paddlex.jsonl"
    listing.write_text("\0".join(paths))
    with (work / f"{folder.name}.paddlex.log").open("w") as log:
        program = ROOT / "scripts/comparison/parity_paddlex.py"
        command = [ROOT / ".venv-paddlex/bin/python", program, folder, listing, out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=log)
    outcomes = map(json.loads, out.read_text().splitlines())
    return {outcome["path"]: outcome for outcome in outcomes}


def label_with_mlcls(folder: Path, paths: list[str]) -> dict[str, Outcome]:
    from mlcls_ray import create_pipeline

    pipeline = create_pipeline(model=folder, threshold=0.0)
    outcomes: dict[str, Outcome] = {}
    for path in paths:
        result = next(iter(pipeline.predict(path, on_error="return")))
        if result["error"]:
            outcomes[path] = {"error": result["error"]}
        else:
            scores = zip(result["class_ids"], result["scores"], strict=True)
            outcomes[path] = {"scores": {str(class_id): score for class_id, score in scores}}
    return outcomes


def compare(name: str, expected: Mapping[str, Outcome], actual: Mapping[str, Outcome]) -> dict[str, Any]:
    """Count the images that both sides score and label alike, and list each image that differs."""
    both, same, largest, differences = 0, 0, 0.0, []
    for path, theirs in expected.items():
        ours = actual[path]
        if ("error" in theirs) != ("error" in ours):
            messages = {"paddlex": theirs.get("error", "labels"), "ours": ours.get("error", "labels")}
            differences.append({"path": path, **messages})
        elif "scores" in theirs:
            both += 1
            class_ids = theirs["scores"].keys() | ours["scores"].keys()
            difference = max(abs(theirs["scores"].get(key, 0.0) - ours["scores"].get(key, 0.0)) for key in class_ids)
            changed = labels(theirs) ^ labels(ours)
            same += not changed
            largest = max(largest, difference)
            if difference > TOLERANCE or changed:
                differences.append(
                    {"path": path, "difference": round(difference, 5), "labels": sorted(changed, key=int)}
                )
    return {
        "model": name,
        "images": len(expected),
        "scored_by_both": both,
        "same_labels_percent": round(100 * same / max(both, 1), 2),
        "largest_difference": round(largest, 6),
        "refused_by_one": sum("paddlex" in difference for difference in differences),
        "differences": differences,
    }


def labels(outcome: Outcome) -> set[str]:
    return {class_id for class_id, score in outcome["scores"].items() if score > THRESHOLD}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, help="networks have random weights")
    parser.add_argument("--images", type=int, default=0, help="of coco_mini and of the mutated photographs; 0: all")
    parser.add_argument("--work", type=Path, default=ROOT / "results/parity", help="a folder for images and results")
    parser.add_argument("--without-paddlex", action="store_true", help="label with mlcls_ray only, as a trial run")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    paths = make_corpus(work, arguments.images)
    if arguments.without_paddlex:
        for name in arguments.models:
            outcomes = label_with_mlcls(make_model(name, work), paths).values()
            scored = sum("scores" in outcome for outcome in outcomes)
            print(f"{name}: {scored} of {len(paths)} images scored, not compared")
        return
    print("| model | scored by both | same labels | largest difference | refused by one side | s PaddleX | s ours |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.models:
        folder = make_model(name, work)
        started = time.monotonic()
        expected = label_with_paddlex(folder, paths, work)
        between = time.monotonic()
        actual = label_with_mlcls(folder, paths)
        ended = time.monotonic()
        result = compare(name, expected, actual)
        (work / f"{name}.json").write_text(json.dumps(result, indent=1))
        print(
            f"| {name} | {result['scored_by_both']} of {result['images']} | {result['same_labels_percent']} % | "
            f"{result['largest_difference']:.1e} | {result['refused_by_one']} | {between - started:.0f} | {ended - between:.0f} |",
            flush=True,
        )
        for difference in result["differences"]:
            print(f"  {json.dumps(difference)}", file=sys.stderr)


if __name__ == "__main__":
    main()

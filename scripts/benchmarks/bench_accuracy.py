"""What speed costs: labels and mAP of the starter on coco_mini/dev, by engine, precision and way of decoding. See scripts/bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from measuring import ROOT, choose_engines, note, run_job, table

from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.labels.metrics import mean_average_precision

DATA = ROOT.parent / "shared/data/coco_mini"
WAYS = {
    "paddle fp32, exact decode": ("--engine", "paddle", "--precision", "fp32"),
    "auto": (),
    "openvino fp32": ("--engine", "openvino", "--precision", "fp32"),
    "openvino bf16": ("--engine", "openvino", "--precision", "bf16"),
    "paddle bf16": ("--engine", "paddle", "--precision", "bf16"),
}


def accuracy(base: Path) -> tuple[dict[str, Any], str]:
    """Each way over dev, and the two ways of decoding over large copies of its images, against the first of their kind."""
    if not DATA.is_dir():
        note("accuracy: skipped, ../shared is absent")
        return {}, ""
    paths, targets = read_dataset(DATA / "dev.txt", 80)
    choose_engines("starter")  # so few images are not worth a trial to a job
    listed = base / "dev.txt"
    listed.write_text("\n".join(map(str, paths)))
    large = _enlarged(paths, base / "dev-large")
    found: dict[str, dict[str, Any]] = {}
    first: dict[str, Any] | None = None
    for name, flags in WAYS.items():
        told = _labeled(base / f"accuracy-{len(found)}", listed, targets, flags)
        first = first or told
        found[name] = _against(first, told)
        note("accuracy", name, found[name])
    exact = _labeled(base / "accuracy-exact", large, targets, (*WAYS["openvino fp32"], "--config", str(_config(base))))
    scaled = _labeled(base / "accuracy-scaled", large, targets, WAYS["openvino fp32"])
    found["4× enlarged, decode: exact"] = _against(exact, exact)
    found["4× enlarged, decode: auto"] = _against(exact, scaled)
    head = ["starter, coco_mini/dev", "engine", "mAP", "images with the same labels %", "largest difference of a score"]
    keys = ("engine", "map", "same_labels_percent", "largest_difference")
    return found, table(head, [[name, *(one[key] for key in keys)] for name, one in found.items()])


def _config(base: Path) -> Path:
    path = base / "exact.yaml"
    path.write_text(json.dumps({"decode": "exact"}))
    return path


def _enlarged(paths: list[Path], folder: Path) -> Path:
    """The same photographs at four times their sides, so that decoding at a fraction has something to do; a list of them, in order."""
    from PIL import Image

    folder.mkdir()
    names = []
    for number, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        names.append(folder / f"{number:05d}.jpg")
        image.resize((image.width * 4, image.height * 4), Image.BICUBIC).save(names[-1], quality=92)
    listed = folder.with_suffix(".txt")
    listed.write_text("\n".join(map(str, names)))
    return listed


def _labeled(out: Path, listed: Path, targets: np.ndarray, flags: tuple[str, ...]) -> dict[str, Any]:
    done = run_job("starter", listed, out, *flags)
    rows = pq.read_table(out / "runs/r/labels", columns=["row_id", "class_ids", "all_scores"]).sort_by("row_id")
    scores = np.array(rows["all_scores"].to_pylist(), np.float32)
    labels = [set(one) for one in rows["class_ids"].to_pylist()]
    return {
        "engine": done.engine,
        "scores": scores,
        "labels": labels,
        "map": 100 * mean_average_precision(scores, targets),
    }


def _against(first: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    same = sum(one == other for one, other in zip(first["labels"], told["labels"], strict=True))
    return {
        "engine": told["engine"],
        "map": round(told["map"], 3),
        "same_labels_percent": round(100 * same / len(told["labels"]), 2),
        "largest_difference": round(float(np.abs(first["scores"] - told["scores"]).max()), 5),
    }

"""Export the starter, score images with it, and evaluate it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from paddle import nn

from mlcls_ray.datasets.formats import Dataset
from mlcls_ray.devices import Device
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.labels.metrics import micro_f1, per_class_average_precision
from mlcls_ray.labels.select import above_threshold
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.convert.paddle import export_network, write_config

NAME = "EfficientNet-Lite0_ML"
INPUT_SIZE = 384
PREPROCESS = Preprocess(
    size=(INPUT_SIZE, INPUT_SIZE), backend="pil", interpolation="BILINEAR", mean=(0.5,) * 3, std=(0.5,) * 3
)
BATCH_SIZE = 16


def export(network: nn.Layer, vocabulary: tuple[str, ...], threshold: float, out: Path, name: str = NAME) -> Model:
    """Write an inference folder, and read it again."""
    export_network(network, INPUT_SIZE, out)
    write_config(out, name, PREPROCESS, vocabulary, threshold)
    return load_model(out)


def run_batches(model: Model, paths: list[Path]) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the network's output for batches of images, each with its rows."""
    engine = PaddleEngine(model, Device("cpu"), threads=2)
    for start in range(0, len(paths), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        yield rows, engine.run(model.load_pixels(paths[rows]))


def score(model: Model, paths: list[Path]) -> np.ndarray:
    """Score images, float32 [N, C]."""
    return np.concatenate([scores for _, scores in run_batches(model, paths)])


def evaluate(model: Model, dataset: Dataset) -> dict[str, object]:
    """Compute mAP, micro-F1 at the model's thresholds, and the AP of each class."""
    scores = score(model, dataset.paths)
    precisions = per_class_average_precision(scores, dataset.targets)
    predicted = above_threshold(scores, np.asarray(model.thresholds, dtype=np.float32))
    return {
        "images": len(dataset.paths),
        "mAP": round(100 * float(np.nanmean(precisions)), 2),
        "micro_f1": round(micro_f1(predicted, dataset.targets > 0.5), 4),
        "labels_per_image": round(float(predicted.sum(axis=1).mean()), 2),
        "average_precision": {
            name: {"AP": round(100 * float(value), 1), "positives": int(count)}
            for name, value, count in zip(model.vocabulary, precisions, dataset.targets.sum(axis=0), strict=True)
            if count
        },
    }

"""Quantize a model to int8, and keep the result only if its labels stay about as good."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import score_batches
from mlcls_ray.engines.export import check_new
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import RunError
from mlcls_ray.field_types import Precision
from mlcls_ray.labels.metrics import mean_average_precision
from mlcls_ray.models.artifact import INT8, Model, label_files, load_model
from mlcls_ray.models.convert.int8 import check_nncf, to_int8

MAX_LOSS = 1.0
"""Points of mAP that int8 may cost."""
CALIBRATION_IMAGES = 300
BATCH_SIZE = 16


class Quantized(NamedTuple):
    """The folder of a quantized model, and mAP in percent before and after over a number of images."""

    folder: Path
    before: float
    after: float
    images: int


def quantize_model(
    model: Model,
    calibration: Sequence[Path],
    validation: Sequence[Path],
    targets: np.ndarray,
    out: Path,
    max_loss: float = MAX_LOSS,
) -> Quantized:
    """Write a folder with the model and its int8 graph, for `--engine openvino --precision int8`.

    Args:
        calibration: images from which the ranges of the activations are taken; the first CALIBRATION_IMAGES are used.
        validation: images on which mAP is measured, with `targets` float32 [N, C] of 0 and 1.
        max_loss: points of mAP that int8 may cost.

    Raises:
        UsageError: NNCF is not installed, or `out` holds files.
        RunError: int8 costs more than `max_loss` points of mAP; nothing is kept.
    """
    check_nncf()
    check_new(out)
    pixels = model.load_pixels(validation)
    before = _map_percent(model, "fp32", pixels, targets)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary)
        for path in (model.program, model.parameters, *label_files(model.folder)):
            shutil.copyfile(path, folder / path.name)
        to_int8(model, model.load_pixels(calibration[:CALIBRATION_IMAGES]), folder / INT8)
        after = _map_percent(load_model(folder), "int8", pixels, targets)
        if before - after > max_loss:
            raise RunError(
                f"int8 costs {before - after:.2f} points of mAP ({before:.2f} → {after:.2f}); at most {max_loss} are accepted"
            )
        out.mkdir(exist_ok=True)
        for path in folder.iterdir():
            os.replace(path, out / path.name)
    return Quantized(out, before, after, len(pixels))


def _map_percent(model: Model, precision: Precision, pixels: np.ndarray, targets: np.ndarray) -> float:
    engine = load_engine("openvino", model, Device("cpu"), os.cpu_count() or 1, precision)
    engine.warm_up(BATCH_SIZE)
    return 100 * mean_average_precision(score_batches(engine, pixels, BATCH_SIZE), targets)

"""`mlcls quantize`: int8 after training, by NNCF over OpenVINO, kept only where the labels of a validation set stay about as good."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.devices import Device
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.labels.metrics import mean_average_precision
from mlcls_ray.models.artifact import INT8, Model, label_files, load_model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.convert.export import check_new
from mlcls_ray.models.convert.onnx import converted
from mlcls_ray.terminal import suppress_native_output

MISSING = "mlcls quantize needs the extra 'quantize': pip install 'mlcls-ray[quantize]'"
CALIBRATION, VALIDATION = "train.txt", "dev.txt"
MAX_LOSS = 1.0
"""Points of mAP that int8 may cost."""
CALIBRATION_IMAGES = 300
BATCH = 16


class Quantized(NamedTuple):
    """mAP in percent on the validation list, before and after, over so many images."""

    folder: Path
    before: float
    after: float
    images: int


def quantize_model(source: str, data: Path, out: Path, max_loss: float = MAX_LOSS) -> Quantized:
    """Write a model folder that has an int8 graph beside the model, for `--engine openvino --precision int8`.

    Args:
        data: a folder with `train.txt`, whose images calibrate, and `dev.txt`, whose labels judge.

    Raises:
        UsageError: NNCF or the data is not there, or `out` holds files.
        RunError: int8 costs more than `max_loss` points of mAP; nothing is kept.
    """
    try:
        with suppress_native_output():
            import nncf
            import openvino
    except ImportError:
        raise UsageError(MISSING) from None
    for name in (CALIBRATION, VALIDATION):
        if not (data / name).is_file():
            raise UsageError(f"--data: '{data}' has no {name}")
    check_new(out)
    model = open_model(source)
    class_num = len(model.vocabulary)
    calibration = read_dataset(data / CALIBRATION, class_num).paths[:CALIBRATION_IMAGES]
    validation = read_dataset(data / VALIDATION, class_num)
    pixels = _pixels(model, validation.paths)
    told = 100 * mean_average_precision(_scores(_engine(model, "fp32"), pixels), validation.targets)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary)
        for path in (model.program, model.parameters, *label_files(model.folder)):
            shutil.copyfile(path, folder / path.name)
        with suppress_native_output():
            network = openvino.Core().read_model(converted(model))
            images = nncf.Dataset([to_tensor(one[None], model.preprocess) for one in _pixels(model, calibration)])
            openvino.save_model(nncf.quantize(network, images, subset_size=len(calibration)), folder / INT8)
        found = 100 * mean_average_precision(_scores(_engine(load_model(folder), "int8"), pixels), validation.targets)
        if told - found > max_loss:
            raise RunError(
                f"int8 costs {told - found:.2f} points of mAP ({told:.2f} → {found:.2f}); at most {max_loss} are accepted"
            )
        out.mkdir(exist_ok=True)
        for path in folder.iterdir():
            os.replace(path, out / path.name)
    return Quantized(out, told, found, len(pixels))


def _engine(model: Model, precision: str) -> Engine:
    engine = load_engine("openvino", model, Device("cpu"), os.cpu_count() or 1, precision)  # type: ignore[arg-type]
    engine.warm_up(BATCH)
    return engine


def _pixels(model: Model, paths: list[Path]) -> np.ndarray:
    return np.stack([model.preprocess.to_pixels(decode(path.read_bytes()).image) for path in paths])


def _scores(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([engine.score(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)])

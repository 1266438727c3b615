"""`mlcls export`: a model in another format, and the proof that it gives the same scores."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.device import parse_device
from mlcls_ray.engines.selection import load_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.inputs import read_inputs
from mlcls_ray.models.artifact import CONFIG, DEFAULT_THRESHOLD, Model, load_model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.convert import ONNX, OPENVINO, converted, to_openvino
from mlcls_ray.models.zoo import OFFICIAL, STARTER_FOLDER

Format = Literal["paddle", "onnx", "openvino"]
TOLERANCE = 1e-3
"""Between engines in fp32; seen are 7e-4 at most (DESIGN)."""
BATCH = 4
DEMO = Path(__file__).parent / "demo"


class Exported(NamedTuple):
    """Where it is, and the largest difference of a score to Paddle's, over so many images."""

    folder: Path
    difference: float
    images: int


def export_model(source: str, kind: Format, out: Path, images: Sequence[str] = ()) -> Exported:
    """Write a model (a name or an inference folder) in a format into a new folder, and compare its scores with Paddle's.

    `images`: what to compare on; default: the demo photographs.

    Raises:
        UsageError: the model, or the package that the format needs, is not there; or `out` holds files.
        RunError: the scores differ by more than TOLERANCE.
    """
    _check_new(out)
    model = open_model(source)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.folder / CONFIG, out / CONFIG)
    device, threads = parse_device("cpu"), os.cpu_count() or 1
    if kind == "paddle":
        for path in (model.program, model.parameters):
            shutil.copyfile(path, out / path.name)
        found: Engine = load_engine("paddle", load_model(out), device, threads)
    elif kind == "onnx":
        from mlcls_ray.engines.onnx_runtime import OnnxRuntimeEngine

        shutil.copyfile(converted(model), out / ONNX)
        found = OnnxRuntimeEngine(model, device, threads, graph=out / ONNX)
    else:
        from mlcls_ray.engines.openvino_runtime import OpenVinoEngine

        to_openvino(converted(model), out / OPENVINO)
        found = OpenVinoEngine(model, device, threads, graph=out / OPENVINO)
    return _compared(model, found, out, images)


def export_untrained(name: str, out: Path, seed: int = 0, input_size: int = 0) -> Path:
    """Write a network with seeded random weights as an inference folder for COCO's 80 classes: for benchmarks and tests.

    Raises:
        UsageError: no network has this name, or `out` holds files.
    """
    from mlcls_ray.models.build import build_network
    from mlcls_ray.models.export import export_network, write_config
    from mlcls_ray.models.heads import WithSigmoid

    _check_new(out)
    vocabulary = load_model(STARTER_FOLDER).vocabulary
    network = build_network(name, len(vocabulary), seed)
    size = input_size or OFFICIAL[name].input_size
    export_network(WithSigmoid(network), size, out)
    preprocess = Preprocess(size=(size, size), backend="pil", interpolation="BILINEAR")
    write_config(out, name, preprocess, vocabulary, DEFAULT_THRESHOLD)
    return out


def _compared(model: Model, found: Engine, out: Path, images: Sequence[str]) -> Exported:
    told = load_engine("paddle", model, parse_device("cpu"), os.cpu_count() or 1)
    pages = [page.image for page in read_inputs(list(images) or [DEMO]) if page.image is not None]
    if not pages:
        raise UsageError("no image to compare the scores on: give --images")
    difference = 0.0
    for start in range(0, len(pages), BATCH):
        pixels = np.stack([model.preprocess.to_pixels(image) for image in pages[start : start + BATCH]])
        difference = max(difference, float(np.abs(told.score(pixels) - found.score(pixels)).max()))
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported model's scores differ from Paddle's by {difference:.2g}; at most {TOLERANCE} is accepted"
        )
    return Exported(out, difference, len(pages))


def _check_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out: '{out}' exists already: give a new or an empty folder")

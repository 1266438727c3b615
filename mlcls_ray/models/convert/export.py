"""`mlcls export`: a model in another format, and the proof that it gives the same scores."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.labels.vocabulary import read_vocabulary
from mlcls_ray.models.artifact import DEFAULT_THRESHOLD, Model, label_files, load_model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.convert.onnx import ONNX, OPENVINO, converted, to_openvino
from mlcls_ray.models.zoo import OFFICIAL, STARTER_FOLDER
from mlcls_ray.predict.inputs import read_inputs

Format = Literal["paddle", "onnx", "openvino", "paddle-lite"]
TOLERANCE = 1e-3
"""Between engines in fp32; seen are 7e-4 at most (DESIGN)."""
BATCH = 4
DEMO = Path(__file__).parents[2] / "demo"


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
    check_new(out)
    model = open_model(source)
    out.mkdir(parents=True, exist_ok=True)
    for path in label_files(model.folder):
        shutil.copyfile(path, out / path.name)
    device, threads = parse_device("cpu"), os.cpu_count() or 1
    if kind == "paddle":
        for path in (model.program, model.parameters):
            shutil.copyfile(path, out / path.name)
        found: Engine = load_engine("paddle", load_model(out), device, threads)
    elif kind == "onnx":
        from mlcls_ray.engines.onnxruntime import OnnxRuntimeEngine

        shutil.copyfile(converted(model), out / ONNX)
        found = OnnxRuntimeEngine(model, device, threads, graph=out / ONNX)
    elif kind == "paddle-lite":
        from mlcls_ray.models.convert.lite import LITE, to_paddle_lite

        pixels = _pixels(model, images)
        tensors = np.concatenate([to_tensor(one, model.preprocess) for one in pixels])
        scores = iter(
            np.split(to_paddle_lite(model, out / LITE, tensors), np.cumsum([len(one) for one in pixels])[:-1])
        )
        told = load_engine("paddle", model, device, threads)
        return _compared(told.score, lambda _: next(scores), pixels, out)
    else:
        from mlcls_ray.engines.openvino import OpenVinoEngine

        to_openvino(converted(model), out / OPENVINO)
        found = OpenVinoEngine(model, device, threads, graph=out / OPENVINO)
    told = load_engine("paddle", model, device, threads)
    return _compared(told.score, found.score, _pixels(model, images), out)


def export_untrained(name: str, out: Path, seed: int = 0, input_size: int = 0) -> Path:
    """Write a network with seeded random weights as an inference folder for COCO's 80 classes: for benchmarks and tests.

    Raises:
        UsageError: no network has this name, or `out` holds files.
    """
    from mlcls_ray.models.build import build_network
    from mlcls_ray.models.convert.paddle import export_network, write_config
    from mlcls_ray.models.heads import WithSigmoid

    check_new(out)
    vocabulary = load_model(STARTER_FOLDER).vocabulary
    network = build_network(name, len(vocabulary), seed)
    preprocess = OFFICIAL[name].preprocess
    if input_size:
        preprocess = preprocess.model_copy(update={"size": (input_size, input_size)})
    export_network(WithSigmoid(network), preprocess.input_size[0], out)
    write_config(out, name, preprocess, vocabulary, DEFAULT_THRESHOLD)
    return out


def export_checkpoint(
    weights: Path, out: Path, network: str | None = None, label_list: Path | None = None, images: Sequence[str] = ()
) -> Exported:
    """Write a `.pdparams` file, as PaddleX publishes them and its training leaves them, as an inference folder, and compare its scores
    with the network's before it was exported.

    Args:
        network: what the weights are of; by default the name that the file's name begins with.
        label_list: class names, one a line, with or without PaddleX's number before each; by default COCO's 80.

    Raises:
        UsageError: network or classes are not the weights', a file cannot be read, or `out` holds files.
        RunError: the scores differ by more than TOLERANCE.
    """
    from mlcls_ray.models.build import build_network, load_pdparams, score_network
    from mlcls_ray.models.convert.paddle import export_network, write_config
    from mlcls_ray.models.heads import WithSigmoid

    check_new(out)
    name = network or next((one for one in OFFICIAL if weights.name.startswith(one)), None)
    if name is None:
        raise UsageError(f"'{weights.name}' does not say which network its weights are of: give --network")
    vocabulary = read_vocabulary(label_list) if label_list else load_model(STARTER_FOLDER).vocabulary
    built = build_network(name, len(vocabulary))
    load_pdparams(built, weights)
    spec = OFFICIAL[name]
    export_network(WithSigmoid(built), spec.input_size, out)
    write_config(out, name, spec.preprocess, vocabulary, DEFAULT_THRESHOLD)
    model = load_model(out)
    engine = load_engine("paddle", model, parse_device("cpu"), os.cpu_count() or 1)
    return _compared(
        lambda pixels: score_network(built, pixels, spec.preprocess), engine.score, _pixels(model, images), out
    )


Score = Callable[[np.ndarray], np.ndarray]


def _pixels(model: Model, images: Sequence[str]) -> list[np.ndarray]:
    """Batches of uint8 [N, H, W, 3]: the given images, else the demo photographs."""
    pages = [page.image for page in read_inputs(list(images) or [DEMO]) if page.image is not None]
    if not pages:
        raise UsageError("no image to compare the scores on: give --images")
    resized = [model.preprocess.to_pixels(image) for image in pages]
    return [np.stack(resized[start : start + BATCH]) for start in range(0, len(resized), BATCH)]


def _compared(told: Score, found: Score, pixels: list[np.ndarray], out: Path) -> Exported:
    difference = max(float(np.abs(told(one) - found(one)).max()) for one in pixels)
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported model's scores differ from Paddle's by {difference:.2g}; at most {TOLERANCE} is accepted"
        )
    return Exported(out, difference, sum(map(len, pixels)))


def check_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out: '{out}' exists already: give a new or an empty folder")

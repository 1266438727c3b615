"""Export a model in another format, and prove that it gives the same scores as Paddle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import Engine, score_batches
from mlcls_ray.engines.golden import golden_pixels
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.labels.vocabulary import read_vocabulary
from mlcls_ray.models.artifact import DEFAULT_THRESHOLD, Model, label_files, load_model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.convert.onnx import ONNX, OPENVINO, cached_onnx, to_openvino
from mlcls_ray.models.zoo import STARTER_FOLDER
from mlcls_ray.registry import ENGINES, NETWORKS, load
from mlcls_ray.storage.whole import written_whole

Format = Literal["paddle", "onnx", "openvino", "paddle-lite"]
TOLERANCE = 1e-3
"""The largest accepted difference of a score between engines in fp32. The largest one measured is 7e-4."""
BATCH_SIZE = 4
CPU, THREADS = Device("cpu"), os.cpu_count() or 1


class Exported(NamedTuple):
    """The folder of an exported model, and the largest difference of a score to Paddle's over a number of images."""

    folder: Path
    difference: float
    images: int


def export_model(source: str, format: Format, out: Path, images: Sequence[np.ndarray] | None = None) -> Exported:
    """Write a model in a format into a new folder, and compare its scores with Paddle's. The folder is there at the end, or not at all.

    Args:
        source: a name or an inference folder.
        images: RGB images, uint8 [H, W, 3], to compare the scores on; None: the demo photographs.

    Raises:
        UsageError: the model or the package that the format needs is missing, there are no images, or `out` holds files.
        RunError: the model cannot be converted, or the scores differ by more than TOLERANCE.
    """
    check_new(out)
    model = open_model(source)
    pixels = _pixels(model, images)
    with written_whole(out) as folder:
        folder.mkdir()
        for path in label_files(model.folder):
            shutil.copyfile(path, folder / path.name)
        actual = WRITERS[format](model, folder, pixels)
        return compare_scores(_paddle_scores(model, pixels), actual, out)


def export_untrained(name: str, out: Path, seed: int = 0, input_size: int = 0) -> Path:
    """Write a network with seeded random weights as an inference folder for COCO's 80 classes, for benchmarks and tests.

    Args:
        input_size: side of the input; 0: the network's usual one.

    Raises:
        UsageError: no network has this name, or `out` holds files.
    """
    from mlcls_ray.models.build import build_network
    from mlcls_ray.models.convert.paddle import export_network, write_config
    from mlcls_ray.models.heads import WithSigmoid
    from mlcls_ray.models.networks import network_spec

    check_new(out)
    spec = network_spec(name)
    vocabulary = load_model(STARTER_FOLDER).vocabulary
    preprocess = spec.preprocess
    if input_size:
        preprocess = preprocess.model_copy(update={"size": (input_size, input_size)})
    with written_whole(out) as folder:
        export_network(WithSigmoid(build_network(spec, len(vocabulary), seed)), preprocess.input_size[0], folder)
        write_config(folder, spec.name, preprocess, vocabulary, DEFAULT_THRESHOLD)
    return out


def export_checkpoint(
    weights: Path,
    out: Path,
    network: str | None = None,
    label_list: Path | None = None,
    images: Sequence[np.ndarray] | None = None,
) -> Exported:
    """Write a `.pdparams` file, as PaddleX publishes and trains them, as an inference folder, and compare the folder's scores with those of
    the network before it was exported.

    Args:
        network: the network that the weights are of; None: the name that the file's name begins with.
        label_list: class names, one a line, with or without PaddleX's number before each; None: COCO's 80.
        images: as for `export_model`.

    Raises:
        UsageError: the weights do not fit the network or the classes, a file cannot be read, or `out` holds files.
        RunError: the scores differ by more than TOLERANCE.
    """
    from mlcls_ray.models.build import build_network, load_pdparams, score_network
    from mlcls_ray.models.convert.paddle import export_network, write_config
    from mlcls_ray.models.heads import WithSigmoid
    from mlcls_ray.models.networks import network_spec

    check_new(out)
    name = network or next((name for name in NETWORKS if weights.name.startswith(name)), None)
    if name is None:
        raise UsageError(f"the name of '{weights.name}' does not begin with a network's: give --network")
    spec = network_spec(name)
    vocabulary = read_vocabulary(label_list) if label_list else load_model(STARTER_FOLDER).vocabulary
    layer = build_network(spec, len(vocabulary))
    load_pdparams(layer, weights)
    with written_whole(out) as folder:
        export_network(WithSigmoid(layer), spec.input_size, folder)
        write_config(folder, spec.name, spec.preprocess, vocabulary, DEFAULT_THRESHOLD)
        model = load_model(folder)
        pixels = _pixels(model, images)
        expected = np.concatenate([score_network(layer, pixels[[row]], spec.preprocess) for row in range(len(pixels))])
        return compare_scores(expected, _paddle_scores(model, pixels), out)


def compare_scores(expected: np.ndarray, actual: np.ndarray, out: Path) -> Exported:
    """Compare scores float32 [N, C] of the model in `out` with those that are expected.

    Raises:
        RunError: they differ by more than TOLERANCE.
    """
    difference = float(np.abs(expected - actual).max())
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported model's scores differ from Paddle's by {difference:.2g}; at most {TOLERANCE} is accepted"
        )
    return Exported(out, difference, len(expected))


def check_new(out: Path) -> None:
    """Check that a folder can be written to without mixing with other files.

    Raises:
        UsageError: it is a file, or holds files.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out: '{out}' exists already: give a new or an empty folder")


def _pixels(model: Model, images: Sequence[np.ndarray] | None) -> np.ndarray:
    if images is None:
        return golden_pixels(model)
    if not images:
        raise UsageError("no image to compare the scores on: give --images")
    return np.stack([model.preprocess.to_pixels(image) for image in images])


def _paddle_scores(model: Model, pixels: np.ndarray) -> np.ndarray:
    return _scores(load_engine("paddle", model, CPU, THREADS), pixels)


def _scores(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    engine.warm_up(BATCH_SIZE)
    return score_batches(engine, pixels, BATCH_SIZE)


def _write_paddle(model: Model, out: Path, pixels: np.ndarray) -> np.ndarray:
    for path in (model.program, model.parameters):
        shutil.copyfile(path, out / path.name)
    return _paddle_scores(load_model(out), pixels)


def _write_onnx(model: Model, out: Path, pixels: np.ndarray) -> np.ndarray:
    shutil.copyfile(cached_onnx(model), out / ONNX)
    # The base installation has OpenVINO, which reads ONNX too, and not ONNX Runtime.
    name = "onnxruntime" if find_spec("onnxruntime") else "openvino"
    return _scores(load(ENGINES[name])(model, CPU, THREADS, graph=out / ONNX), pixels)


def _write_openvino(model: Model, out: Path, pixels: np.ndarray) -> np.ndarray:
    from mlcls_ray.engines.openvino import OpenVinoEngine

    to_openvino(cached_onnx(model), out / OPENVINO)
    return _scores(OpenVinoEngine(model, CPU, THREADS, graph=out / OPENVINO), pixels)


def _write_paddle_lite(model: Model, out: Path, pixels: np.ndarray) -> np.ndarray:
    from mlcls_ray.models.convert.lite import LITE, to_paddle_lite

    return to_paddle_lite(model, out / LITE, to_tensor(pixels, model.preprocess))


WRITERS: Mapping[Format, Callable[[Model, Path, np.ndarray], np.ndarray]] = {
    "paddle": _write_paddle,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "paddle-lite": _write_paddle_lite,
}
"""Each writes a model into a folder, and scores uint8 pixels [N, H, W, 3] with what it has written: float32 [N, C]."""

"""Paddle programs → ONNX and OpenVINO IR; what a worker needs is converted once per machine, into the model cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from filelock import FileLock

from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home
from mlcls_ray.terminal import suppress_native_output

OPSET = 17
ONNX, OPENVINO = "inference.onnx", "inference.xml"
MISSING = "needs paddle2onnx, onnx, onnx-graphsurgeon, onnxruntime and openvino, which are installed with mlcls-ray on x86-64 only"


def to_onnx(model: Model, path: Path) -> None:
    """Write a model as ONNX, whole or not at all; its input stays `x`, float32 [N, 3, H, W].

    Raises:
        UsageError: paddle2onnx is not installed.
        RunError: it cannot convert the program.
    """
    # One of paddle2onnx's helpers would install packages at run time, from whatever index there is.
    os.environ["POLYGRAPHY_AUTOINSTALL_DEPS"] = "0"
    try:
        import paddle2onnx
    except ImportError:
        raise UsageError(f"ONNX {MISSING}") from None
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        made = Path(temporary) / ONNX
        try:
            with suppress_native_output():
                paddle2onnx.export(
                    str(model.program),
                    str(model.parameters),
                    str(made),
                    opset_version=OPSET,
                    verbose=False,
                    optimize_tool="polygraphy",  # folds the constants that keep OpenVINO from seeing the shapes
                )
        except Exception as error:  # its C++ side raises RuntimeError and others
            raise RunError(f"model '{model.name}': paddle2onnx cannot convert it: {error}") from None
        if not made.is_file():
            raise RunError(f"model '{model.name}': paddle2onnx cannot convert it")
        os.replace(made, path)


def to_openvino(onnx: Path, path: Path) -> None:
    """Write an ONNX model as OpenVINO IR in fp32: an .xml file and a .bin beside it.

    Raises:
        UsageError: openvino is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise UsageError(f"OpenVINO {MISSING}") from None
    openvino.save_model(openvino.convert_model(str(onnx)), str(path), compress_to_fp16=False)


def converted(model: Model) -> Path:
    """The model as ONNX in this machine's cache, keyed by its fingerprint; made under a lock by the first who asks, whole or not at all.

    Raises:
        UsageError, RunError: as `to_onnx`.
    """
    folder = home() / "converted"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{model.fingerprint[:32]}.onnx"
    if target.is_file():
        return target
    with FileLock(folder / f".{target.name}.lock"):
        if not target.is_file():
            to_onnx(model, target)
    return target

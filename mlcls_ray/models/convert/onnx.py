"""Paddle programs → ONNX and OpenVINO IR. What engines need is converted once per machine, into the cache."""

from __future__ import annotations

from pathlib import Path

from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home, once
from mlcls_ray.terminal import suppress_native_output

OPSET = 17
ONNX, OPENVINO = "inference.onnx", "inference.xml"
MISSING = "needs a package that is not installed here (`mlcls doctor` says which); on other machines than x86-64 there is only Paddle"


def cached_onnx(model: Model) -> Path:
    """Convert a model to ONNX in this machine's cache, keyed by its fingerprint.

    Raises:
        UsageError, RunError: as `to_onnx`.
    """
    return once(home() / "converted" / f"{model.fingerprint[:32]}.onnx", lambda path: to_onnx(model, path))


def to_onnx(model: Model, path: Path) -> None:
    """Write a model as ONNX; its input stays `x`, float32 [N, 3, H, W].

    Raises:
        UsageError: paddle2onnx is not installed.
        RunError: paddle2onnx cannot convert the program.
    """
    try:
        import paddle2onnx
        from polygraphy import config
    except ImportError:
        raise UsageError(f"ONNX {MISSING}") from None
    # paddle2onnx allows its helper to install packages at run time, and it would put onnxruntime beside onnxruntime-gpu.
    config.AUTOINSTALL_DEPS = False
    try:
        with suppress_native_output():
            paddle2onnx.export(
                str(model.program),
                str(model.parameters),
                str(path),
                opset_version=OPSET,
                verbose=False,
                optimize_tool="polygraphy",  # folds constants; otherwise OpenVINO does not see the shapes
            )
    except Exception as error:  # its C++ side raises RuntimeError and others
        raise RunError(f"model '{model.name}': paddle2onnx cannot convert it: {error}") from None
    if not path.is_file():
        raise RunError(f"model '{model.name}': paddle2onnx cannot convert it")


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

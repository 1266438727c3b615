"""Quantization to int8 after training, by NNCF over OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.convert.onnx import cached_onnx
from mlcls_ray.terminal import suppress_native_output

MISSING = "mlcls quantize needs the extra 'quantize': pip install 'mlcls-ray[quantize]'"


def check_nncf() -> None:
    """Check that NNCF is installed.

    Raises:
        UsageError: it is not.
    """
    try:
        with suppress_native_output():
            import nncf  # noqa: F401
            import openvino  # noqa: F401
    except ImportError:
        raise UsageError(MISSING) from None


def to_int8(model: Model, pixels: np.ndarray, path: Path) -> None:
    """Write a model as OpenVINO IR in int8. The ranges of its activations are taken from pixels uint8 [N, H, W, 3].

    Raises:
        UsageError: NNCF is not installed.
        RunError: the model cannot be converted.
    """
    check_nncf()
    import nncf
    import openvino

    with suppress_native_output():
        network = openvino.Core().read_model(cached_onnx(model))
        images = nncf.Dataset([to_tensor(image[None], model.preprocess) for image in pixels])
        openvino.save_model(nncf.quantize(network, images, subset_size=len(pixels)), path)

"""ONNX Runtime: fp32 on CPU; with the package onnxruntime-gpu also fp32 on CUDA, and fp16 by its TensorRT provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import EngineSpec, check_scores, unit_length
from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home
from mlcls_ray.models.convert.onnx import MISSING, cached_onnx

PROVIDERS = {
    ("cpu", "fp32"): "CPUExecutionProvider",
    ("gpu", "fp32"): "CUDAExecutionProvider",
    ("gpu", "fp16"): "TensorrtExecutionProvider",
}


class OnnxRuntimeEngine:
    """A session over the converted model."""

    name = "onnxruntime"
    spec: ClassVar = EngineSpec(
        candidates={"cpu": ("fp32",), "gpu": ("fp16",)},
        packages=("onnxruntime", "onnxruntime-gpu"),
    )

    def __init__(
        self, model: Model, device: Device, threads: int, precision: str = "fp32", graph: Path | None = None
    ) -> None:
        """Load the model, or the ONNX file `graph` instead; `embed` needs a graph with features.

        Raises:
            UsageError: ONNX Runtime is not installed, cannot use the device, or does not have the precision.
            RunError: the model cannot be converted.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UsageError(f"engine onnxruntime {MISSING}") from None
        if device.is_cpu and precision != "fp32":
            raise UsageError(f"engine onnxruntime has no precision '{precision}': use fp32")
        provider = PROVIDERS.get((device.kind, precision), "")
        if provider not in onnxruntime.get_available_providers():
            raise UsageError(
                f"engine onnxruntime: this package cannot run on '{device}' in {precision}; for gpu install onnxruntime-gpu"
            )
        self.precision = precision
        self._is_cpu = device.is_cpu
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(graph or cached_onnx(model)), options, providers=_providers(provider, model, device)
        )
        outputs = self._session.get_outputs()
        self.embedding_size = int(outputs[1].shape[1]) if len(outputs) > 1 else 0
        self._preprocess = model.preprocess
        self._class_num = len(model.vocabulary)

    def warm_up(self, batch_size: int) -> None:
        width, height = self._preprocess.input_size
        # On a CPU little depends on the batch size, and a large network takes seconds for one image.
        images = 1 if self._is_cpu else batch_size
        self.score(np.zeros((images, height, width, 3), dtype=np.uint8))

    def score(self, pixels: np.ndarray) -> np.ndarray:
        return self._run(pixels)[0]

    def embed(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, features = self._run(pixels)
        return scores, unit_length(features)

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the outputs of the graph."""
        tensor = to_tensor(pixels, self._preprocess)
        outputs: list[np.ndarray] = self._session.run(None, {self._session.get_inputs()[0].name: tensor})
        check_scores(outputs[0], len(pixels), self._class_num)
        return outputs


def _providers(provider: str, model: Model, device: Device) -> list[Any]:
    """List providers with their options. TensorRT caches the engines it builds; operators that it does not have run on CUDA."""
    if device.is_cpu:
        return [provider]
    cuda = ("CUDAExecutionProvider", {"device_id": device.index})
    if provider == cuda[0]:
        return [cuda]
    cache = home() / "tensorrt" / model.fingerprint[:32]
    cache.mkdir(parents=True, exist_ok=True)
    caching = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache), "trt_timing_cache_enable": True}
    return [(provider, {"device_id": device.index, "trt_fp16_enable": True, **caching}), cuda]

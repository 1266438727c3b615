"""Engines by name. Each is imported where it runs: loading them takes seconds."""

from __future__ import annotations

from mlcls_ray.config import EngineName, Precision
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.device import Device
from mlcls_ray.models.artifact import Model


def load_engine(name: EngineName, model: Model, device: Device, threads: int, precision: Precision = "fp32") -> Engine:
    """Load a model into an engine. Raises what the engine's constructor raises."""
    if name == "openvino":
        from mlcls_ray.engines.openvino_runtime import OpenVinoEngine

        return OpenVinoEngine(model, device, threads, precision)
    if name == "onnxruntime":
        from mlcls_ray.engines.onnx_runtime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(model, device, threads, precision)
    if name == "tensorrt":
        from mlcls_ray.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(model, device, threads, precision)
    from mlcls_ray.engines.paddle_inference import PaddleEngine

    return PaddleEngine(model, device, threads, precision)

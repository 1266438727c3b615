"""Engines by name. Each is imported where it runs: loading them takes seconds."""

from __future__ import annotations

from mlcls_ray.config import EngineName, Precision, PrecisionOrAuto, find_embedding_conflict
from mlcls_ray.devices import Device
from mlcls_ray.engines.base import Embedder, Engine
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.features import converted_with_features


def load_engine(name: EngineName, model: Model, device: Device, threads: int, precision: Precision = "fp32") -> Engine:
    """Load a model into an engine. Raises what the engine's constructor raises."""
    if name == "openvino":
        from mlcls_ray.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, device, threads, precision)
    if name == "onnxruntime":
        from mlcls_ray.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(model, device, threads, precision)
    if name == "tensorrt":
        from mlcls_ray.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(model, device, threads, precision)
    from mlcls_ray.engines.paddle import PaddleEngine

    return PaddleEngine(model, device, threads, precision)


def load_embedder(
    name: EngineName, model: Model, device: Device, threads: int, precision: Precision = "fp32"
) -> Embedder:
    """Load a model with its features into an engine that can give them.

    Raises:
        UsageError: the engine cannot, or the model has no features that we know.
    """
    check_embeds(name, precision)
    graph = converted_with_features(model)
    if name == "openvino":
        from mlcls_ray.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, device, threads, precision, graph)
    from mlcls_ray.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, device, threads, precision, graph)


def check_embeds(name: EngineName, precision: PrecisionOrAuto) -> None:
    """Whether an engine can give features beside the scores.

    Raises:
        UsageError: it cannot.
    """
    conflict = find_embedding_conflict(name, precision)
    if conflict:
        raise UsageError(conflict)

"""Engines by name."""

from __future__ import annotations

from typing import Literal

from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.device import Device
from mlcls_ray.models.artifact import Model

EngineName = Literal["paddle"]


def load_engine(name: EngineName, model: Model, device: Device, threads: int) -> Engine:
    """Load a model into an engine. Raises what the engine's constructor raises."""
    from mlcls_ray.engines.paddle_inference import PaddleEngine  # loads Paddle: only where it runs

    engines = {"paddle": PaddleEngine}
    return engines[name](model, device, threads)

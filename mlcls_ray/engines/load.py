"""Engines by name. Their libraries are imported when an engine is constructed, because that takes seconds."""

from __future__ import annotations

from collections.abc import Callable

from mlcls_ray.config import find_embedding_conflict
from mlcls_ray.devices import Device
from mlcls_ray.engines.base import Embedder, Engine, EngineSpec
from mlcls_ray.errors import UsageError
from mlcls_ray.field_types import EngineName, Precision, PrecisionOrAuto
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.features import converted_with_features
from mlcls_ray.registry import EMBEDDING_ENGINES, ENGINES, load

LoadEngine = Callable[[EngineName, Model, Device, int, Precision], Engine]
"""The signature of `load_engine`, without its last argument."""


def engine_spec(name: str) -> EngineSpec:
    """Return what an engine says about itself, without its library."""
    spec: EngineSpec = load(ENGINES[name]).spec
    return spec


def load_engine(
    name: EngineName,
    model: Model,
    device: Device,
    threads: int,
    precision: Precision = "fp32",
    is_brief: bool = False,
) -> Engine:
    """Load a model into an engine; `is_brief`: for few images. Raises what the engine's constructor raises."""
    engine: Engine = load(ENGINES[name])(model, device, threads, precision, is_brief=is_brief)
    return engine


def load_embedder(
    name: EngineName,
    model: Model,
    device: Device,
    threads: int,
    precision: Precision = "fp32",
    is_brief: bool = False,
) -> Embedder:
    """Load a model with its features into an engine that can give them.

    Raises:
        UsageError: the engine cannot, or the model has no features of a known form.
    """
    check_embeds(name, precision)
    engine: Embedder = load(ENGINES[name])(
        model, device, threads, precision, graph=converted_with_features(model), is_brief=is_brief
    )
    return engine


def embedding_engine(device: Device) -> EngineName:
    """Return the first engine that gives embeddings and is tried on this kind of device; the last one where none is."""
    usual = (name for name in EMBEDDING_ENGINES if device.kind in engine_spec(name).candidates)
    return next(usual, EMBEDDING_ENGINES[-1])


def check_embeds(name: EngineName, precision: PrecisionOrAuto) -> None:
    """Check that an engine can give features beside the scores.

    Raises:
        UsageError: it cannot.
    """
    conflict = find_embedding_conflict(name, precision)
    if conflict:
        raise UsageError(conflict)

"""The interface of every engine. One engine, one file; `registry.ENGINES` names them, `load` loads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.errors import RunError
from mlcls_ray.field_types import Precision
from mlcls_ray.models.artifact import Model


class DevicePixels(Protocol):
    """Pixels in the memory of a device, uint8 [N, H, W, 3] in C order: a `cupy.ndarray`, or what else has CUDA's array interface."""

    shape: tuple[int, ...]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> DevicePixels: ...


Pixels = np.ndarray | DevicePixels
"""Pixels in host memory, or in that of the device which scores them. The latter must be complete: their stream is synchronised."""


def is_on_device(pixels: Pixels) -> bool:
    """Tell whether pixels are in a device's memory."""
    return hasattr(pixels, "__cuda_array_interface__")


@dataclass(frozen=True)
class EngineSpec:
    """An engine's description of itself. Reading it must not import the engine's library, so that help and planning stay fast."""

    candidates: Mapping[str, tuple[Precision, ...]]
    """Precisions that `engine: auto` tries with it, by kind of device."""
    packages: tuple[str, ...]
    """Packages whose versions decide how fast and how exact it is."""


class Engine(Protocol):
    """A loaded network. Only one thread at a time uses an instance."""

    spec: ClassVar[EngineSpec]
    name: str
    precision: str

    def __init__(
        self, model: Model, device: Device, threads: int, precision: Precision, *, is_brief: bool = False
    ) -> None:
        """Load the model.

        Args:
            threads: CPU threads that it may use.
            is_brief: it will score few images, so it should start soon, even if it is a little slower then.

        Raises:
            UsageError: the engine's package is not installed, or it cannot use the device or the precision.
        """

    def warm_up(self, batch_size: int) -> None:
        """Prepare for batches of this size, so that the first one is as fast as the others."""

    def score(self, pixels: Any) -> np.ndarray:
        """Score uint8 [N, H, W, 3] RGB at the model's input size: float32 [N, C] after the sigmoid.

        `pixels` is an array in host memory. Engines that run on NVIDIA cards take `Pixels`.
        """


class Embedder(Engine, Protocol):
    """An engine that was loaded with the features of the network."""

    embedding_size: int

    def embed(self, pixels: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores, and the average of the last feature map over its positions, float32 [N, D] of length 1."""


def score_batches(engine: Engine, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """Score any number of images, a batch at a time: uint8 [N, H, W, 3] → float32 [N, C]."""
    starts = range(0, len(pixels), batch_size)
    return np.concatenate([engine.score(pixels[start : start + batch_size]) for start in starts])


def check_scores(scores: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Return the scores of a network if they have the right shape.

    Raises:
        RunError: they are not [images, classes].
    """
    if scores.shape != (images, classes):
        raise RunError(f"the network gives {scores.shape}; inference.yml lists {classes} classes")
    return scores


def unit_length(features: np.ndarray) -> np.ndarray:
    """Scale float32 [N, D] to vectors of length 1, so that a dot product is a cosine; zeros stay zeros."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: np.ndarray = features / np.maximum(lengths, 1e-12)
    return scaled.astype(np.float32)

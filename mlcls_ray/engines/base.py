"""What each engine offers. One engine, one file; `selection` makes them by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mlcls_ray.errors import RunError


def check_scores(scores: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Scores as a network gave them.

    Raises:
        RunError: they are not [images, classes].
    """
    if scores.shape != (images, classes):
        raise RunError(f"the network gives {scores.shape}; inference.yml lists {classes} classes")
    return scores


def unit_length(features: np.ndarray) -> np.ndarray:
    """float32 [N, D] → the same directions with length 1, so that a dot product is a cosine; zeros stay zeros."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    found: np.ndarray = features / np.maximum(lengths, 1e-12)
    return found.astype(np.float32)


class Engine(Protocol):
    """A loaded network. Loading happens in the constructor; an instance is used by one thread at a time."""

    name: str
    precision: str

    def warm_up(self, batch_size: int) -> None:
        """Make what batches of this size need, so that the first real one is not the slow one."""

    def score(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] RGB at the model's input size → float32 [N, C] after the sigmoid."""


class Embedder(Engine, Protocol):
    """An engine that was loaded with the features of the network."""

    embedding_size: int

    def embed(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores as `score`, and the average of the last feature map over its positions, float32 [N, D] of length 1."""

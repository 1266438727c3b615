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


class Engine(Protocol):
    """A loaded network. Loading happens in the constructor; an instance is used by one thread at a time."""

    name: str
    precision: str

    def warm_up(self, batch_size: int) -> None:
        """Run once at the size that will come, so that the first real batch is not the slow one."""

    def score(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] RGB at the model's input size → float32 [N, C] after the sigmoid."""

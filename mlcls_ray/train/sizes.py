"""Settings of a training by the number of its images: few images need small steps, and little that changes the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple


class Size(NamedTuple):
    """The options for training sets of fewer than `below` images."""

    below: float
    epochs: int
    batch_size: int
    learning_rate: float
    freeze_fraction: float
    randaugment_n: int
    randaugment_m: int
    cutout: float
    min_crop_area: float


SIZES = (
    Size(200, 20, 4, 1e-4, 0.75, 0, 0, 0.0, 0.8),
    Size(1_000, 20, 8, 2e-4, 0.5, 1, 5, 0.1, 0.8),
    Size(20_000, 20, 16, 1e-3, 0.0, 2, 7, 0.3, 0.7),
    Size(math.inf, 10, 16, 1e-3, 0.0, 2, 7, 0.3, 0.7),
)
RANDOM_START = SIZES[2]
"""The options of whatever the size does not decide where a network starts from random weights: there is nothing to keep."""
FEW_STEPS = 100
"""A training with fewer steps than this hardly changes anything."""


def size_of(images: int) -> Size:
    return next(size for size in SIZES if images < size.below)


def by_size(field: str) -> str:
    """Describe the values of a field in words: `4 below 200 images, 8 below 1,000, else 16`."""
    values = [(size.below, getattr(size, field)) for size in SIZES]
    merged = [
        pair for number, pair in enumerate(values) if number + 1 == len(values) or values[number + 1][1] != pair[1]
    ]
    words = [
        f"{value:g} below {below:,}{' images' if not number else ''}"
        for number, (below, value) in enumerate(merged[:-1])
    ]
    return ", ".join([*words, f"else {merged[-1][1]:g}"])


def describe(values: Mapping[str, object]) -> str:
    """Write fields and their values in one line."""
    return ", ".join(
        f"{name} {str(value).lower() if isinstance(value, bool) else value}" for name, value in values.items()
    )

"""The needs of one image's resize: its sizes, its weights, its rows. Computed on the CPU, in microseconds."""

from __future__ import annotations

import math
from typing import NamedTuple

from mlcls_ray.errors import ImageError
from mlcls_ray.images.preprocess import Preprocess

FILTERS = {"NEAREST": 0, "BOX": 1, "BILINEAR": 2, "BICUBIC": 3, "LANCZOS4": 4}
"""The numbers of Pillow's filters in `resize.cu`, by PaddleX's names."""
REACH = (0.5, 0.5, 1.0, 2.0, 3.0)
"""Samples of the source on each side that a filter looks at, where the image is not made smaller."""


class Axis(NamedTuple):
    """One direction of a resize: `length` positions from `start` on, of `size` samples that are resized to `resized`."""

    size: int
    resized: int
    start: int
    length: int

    def taps(self, filter_number: int) -> int:
        """Return the number of weights of one position, at most."""
        return 2 * math.ceil(REACH[filter_number] * self._filter_scale) + 1

    def span(self, filter_number: int) -> tuple[int, int]:
        """Return the first sample that the positions depend on, and the number of samples up to the last one.

        These are the same operations on doubles as in `resize.cu`, so that both agree on each sample.
        """
        if filter_number == FILTERS["NEAREST"]:
            return 0, self.size
        scale, reach = self.size / self.resized, REACH[filter_number] * self._filter_scale
        first = int((self.start + 0.5) * scale - reach + 0.5)
        stop = int((self.start + self.length - 1 + 0.5) * scale + reach + 0.5)
        return max(first, 0), min(stop, self.size) - max(first, 0)

    @property
    def _filter_scale(self) -> float:
        return max(self.size / self.resized, 1.0)


class Geometry(NamedTuple):
    """The resize of one image: along `first`, the width, then along `second`, the height."""

    first: Axis
    second: Axis
    first_line: int
    """First line of the upright image, along `first`, that the output depends on."""
    lines: int
    weights: tuple[int, int]
    """Integers that the weights of all positions take, for each axis."""

    @property
    def between_bytes(self) -> int:
        """The size of the lines between the passes."""
        return self.lines * self.first.length * 3

    @property
    def scratch_bytes(self) -> int:
        return self.between_bytes + 4 * sum(self.weights)


def geometry(preprocess: Preprocess, width: int, height: int) -> Geometry | None:
    """Plan the resize of an upright image of this size; None: the CPU refuses it, and says why."""
    try:
        resized = preprocess.resized_size(width, height)
    except ImageError:
        return None
    filter_number = FILTERS[preprocess.interpolation]
    out_width, out_height = preprocess.input_size
    x = Axis(width, resized[0], max(0, (resized[0] - out_width) // 2), out_width)
    y = Axis(height, resized[1], max(0, (resized[1] - out_height) // 2), out_height)
    weights = x.taps(filter_number) * x.length, y.taps(filter_number) * y.length
    return Geometry(x, y, *y.span(filter_number), weights)


def unsupported_reason(preprocess: Preprocess) -> str | None:
    """Tell why the card cannot do a preprocessing bit by bit as the CPU does; None: it can. Needs no card."""
    if preprocess.backend == "pil":
        return None
    return (
        f"inference.yml asks for OpenCV's resize ({preprocess.interpolation}), which only the CPU does; "
        "the card does Pillow's (backend: pil)"
    )

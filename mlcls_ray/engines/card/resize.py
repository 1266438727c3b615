"""The batched resize: images of any sizes on the card → one input batch of a model, bit-equal to Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_ray.engines.base import Pixels
from mlcls_ray.engines.card.backend import CardBackend, CardImage
from mlcls_ray.engines.card.geometry import FILTERS, Geometry

SOURCE = Path(__file__).with_name("resize.cu")
KERNELS = ("compute_weights", "resize_first", "resize_second")
BLOCK = 128
"""Threads of a block."""


class ResizeJob(NamedTuple):
    """One image to resize."""

    image: CardImage
    orientation: int
    """EXIF orientation, 1 to 8."""
    geometry: Geometry
    output_row: int


def resize(backend: CardBackend, jobs: Sequence[ResizeJob], interpolation: str, output: Pixels) -> None:
    """Resize images into the rows of `output`, uint8 [N, H, W, 3]. It is queued; the images must stay until it is done.

    Args:
        interpolation: a key of `FILTERS`.
    """
    if not jobs:
        return
    geometries = [job.geometry for job in jobs]
    weights_at = [0, *accumulate(count for geometry in geometries for count in geometry.weights)]
    between_at = [0, *accumulate(geometry.between_bytes for geometry in geometries)]
    places = zip(weights_at[::2], weights_at[1::2], between_at, strict=False)  # the last offset is the size
    columns = [_columns(job, place, *output.shape[1:3]) for job, place in zip(jobs, places, strict=False)]
    table = backend.upload(np.array(columns, np.int64))
    positions = output.shape[1] + output.shape[2]
    spans = backend.empty((len(jobs) * positions * 2,), np.int32)
    weights = backend.empty((_rounded(weights_at[-1]),), np.int32)
    between = backend.empty((_rounded(between_at[-1]),), np.uint8)
    first_length = max(geometry.first.length for geometry in geometries)
    second_length = max(geometry.second.length for geometry in geometries)
    lines = max(geometry.lines for geometry in geometries)
    backend.launch(
        "compute_weights",
        (_blocks(positions), len(jobs), 1),
        BLOCK,
        (table, np.int32(FILTERS[interpolation]), np.int32(positions), spans, weights),
    )
    arguments = table, np.int32(positions), spans, weights, between
    backend.launch("resize_first", (_blocks(first_length), lines, len(jobs)), BLOCK, arguments)
    backend.launch("resize_second", (_blocks(3 * first_length), second_length, len(jobs)), BLOCK, (*arguments, output))


def _columns(job: ResizeJob, place: tuple[int, int, int], height: int, width: int) -> tuple[int, ...]:
    """Make the columns of `resize.cu`. `place`: where the weights of both axes and the lines begin; `height`, `width`: of the output."""
    geometry = job.geometry
    first, second = geometry.first, geometry.second
    return (
        *_upright(job.image, job.orientation),
        first.size,
        second.size,
        first.resized,
        second.resized,
        first.start,
        second.start,
        first.length,
        second.length,
        *place[:2],
        3,
        3 * width,
        geometry.first_line,
        geometry.lines,
        place[2],
        job.output_row * height * width * 3,
    )


def _upright(image: CardImage, orientation: int) -> tuple[int, int, int]:
    """Turn an image without moving a pixel: return the address of the upright image's first pixel, and the steps to the right and down."""
    right, down = 3, image.row_bytes
    last_x, last_y = right * (image.width - 1), down * (image.height - 1)
    offset, step_x, step_y = {
        1: (0, right, down),
        2: (last_x, -right, down),
        3: (last_x + last_y, -right, -down),
        4: (last_y, right, -down),
        5: (0, down, right),
        6: (last_y, -down, right),
        7: (last_x + last_y, -down, -right),
        8: (last_x, down, -right),
    }[orientation]
    return image.address + offset, step_x, step_y


def _blocks(threads: int) -> int:
    return -(-threads // BLOCK)


def _rounded(count: int) -> int:
    """Round up to a power of two: batches of about the same size then find the memory of the last one in the pool."""
    return 1 << max(count - 1, 1).bit_length()

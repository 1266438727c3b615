"""The batched resize: images of any sizes on the card → one input batch of a model, bit-equal to Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_ray.engines.card.backend import CardBackend, CardImage, Pixels
from mlcls_ray.engines.card.geometry import FILTERS, Geometry
from mlcls_ray.images.decode import SIDES_SWAPPED

SOURCE = Path(__file__).with_name("resize.cu")
KERNELS = ("compute_weights", "resize_rows", "resize_columns")
BLOCK = 128
"""Threads of a block."""


class ResizeJob(NamedTuple):
    """One image to resize."""

    image: CardImage
    orientation: int
    """EXIF orientation, 1 to 8."""
    geometry: Geometry
    output_row: int


class _View(NamedTuple):
    """The upright image in the memory of the stored one."""

    address: int
    step_x: int
    step_y: int
    width: int
    height: int


def resize(backend: CardBackend, jobs: Sequence[ResizeJob], interpolation: str, output: Pixels) -> None:
    """Resize images into the rows of `output`, uint8 [N, H, W, 3]. It is queued; the images must stay until it is done.

    Args:
        interpolation: a key of `FILTERS`.
    """
    if not jobs:
        return
    height, width = output.shape[1:3]
    geometries = [job.geometry for job in jobs]
    weight_counts = [count for geometry in geometries for count in (geometry.weights_x, geometry.weights_y)]
    weight_offsets = [0, *accumulate(weight_counts)]
    between_offsets = [0, *accumulate(geometry.between_bytes for geometry in geometries)]
    table = np.array(
        [
            _columns(job, weight_offsets[2 * number], weight_offsets[2 * number + 1], between_offsets[number])
            for number, job in enumerate(jobs)
        ],
        np.int64,
    )
    columns = backend.upload(table)
    spans = backend.empty((len(jobs) * (width + height) * 2,), np.int32)
    weights = backend.empty((_rounded(weight_offsets[-1]),), np.int32)
    between = backend.empty((_rounded(between_offsets[-1]),), np.uint8)
    size = np.int32(width), np.int32(height)
    rows = max(geometry.rows for geometry in geometries)
    backend.launch(
        "compute_weights",
        (_blocks(width + height), len(jobs), 1),
        BLOCK,
        (columns, np.int32(FILTERS[interpolation]), *size, spans, weights),
    )
    backend.launch("resize_rows", (_blocks(width), rows, len(jobs)), BLOCK, (columns, *size, spans, weights, between))
    backend.launch(
        "resize_columns", (_blocks(3 * width), height, len(jobs)), BLOCK, (columns, *size, spans, weights, between, output)
    )  # fmt: skip


def _columns(job: ResizeJob, weights_x: int, weights_y: int, between: int) -> tuple[int, ...]:
    """Make the columns of `resize.cu`."""
    view, geometry = _upright(job.image, job.orientation), job.geometry
    return (
        *view,
        geometry.x.resized,
        geometry.y.resized,
        geometry.x.start,
        geometry.y.start,
        geometry.first_row,
        geometry.rows,
        weights_x,
        weights_y,
        between,
        job.output_row,
    )


def _upright(image: CardImage, orientation: int) -> _View:
    """Turn an image without moving a pixel: EXIF's orientation says where the first row and the first column are."""
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
    size = (image.height, image.width) if orientation in SIDES_SWAPPED else (image.width, image.height)
    return _View(image.address + offset, step_x, step_y, *size)


def _blocks(threads: int) -> int:
    return -(-threads // BLOCK)


def _rounded(count: int) -> int:
    """Round up to a power of two: batches of about the same size then find the memory of the last one in the pool."""
    return 1 << max(count - 1, 1).bit_length()

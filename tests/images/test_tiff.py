"""TIFF: OpenCV's pixels, or `unsupported` with a name; never a black, wrapped or inverted picture."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from tests.images.tiffs import (
    BLACK_IS_ZERO,
    CMYK,
    DEFLATE,
    FLOAT,
    INT,
    LAB,
    NONE,
    PACKBITS,
    PALETTE,
    RGB,
    UINT,
    WHITE_IS_ZERO,
    YCBCR,
    Layout,
    gradient,
    write_tiff,
)

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode, decode_pages


def layouts() -> list[Layout]:
    """Every combination that has a meaning."""
    found = []
    for bits, kind, photometric, planar, compression, order, extra in itertools.product(
        (1, 2, 4, 8, 12, 16, 32, 64), (UINT, INT, FLOAT), (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, LAB), (1, 2),
        (NONE, DEFLATE, PACKBITS), "<>", ((), (0,), (1,), (2,)),
    ):  # fmt: skip
        samples = {RGB: 3, CMYK: 4, LAB: 3}.get(photometric, 1) + len(extra)
        if (kind == FLOAT and bits not in (16, 32, 64)) or (photometric == PALETTE and bits > 8) or (planar == 2 and samples == 1):
            continue
        if bits == 64 and kind != FLOAT:
            continue
        found.append(Layout(bits, kind, photometric, samples, planar, compression, order, extra))
    return found


ALL = layouts()
SAMPLE = ALL[:: max(1, len(ALL) // 150)]


def opencv(data: bytes) -> np.ndarray | None:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else image[..., ::-1]


def check(layout: Layout) -> None:
    data = write_tiff(layout)
    expected = opencv(data)
    try:
        actual = decode(data).image
    except ImageError as error:
        assert error.status is Status.UNSUPPORTED, layout
        assert "TIFF of" in str(error)
        assert expected is None or is_departure(layout), layout
    else:
        assert expected is not None, layout
        assert np.array_equal(actual, expected), layout


def is_departure(layout: Layout) -> bool:
    """OpenCV reads some of these, as a black or wrapped picture."""
    return layout.kind != UINT or layout.bits in (12, 32, 64)


@pytest.mark.parametrize("layout", SAMPLE, ids=str)
def test_a_sample_of_layouts(layout: Layout) -> None:
    check(layout)


@pytest.mark.slow
def test_all_layouts() -> None:
    for layout in ALL:
        check(layout)

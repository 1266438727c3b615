"""JPEG 2000: Pillow's pixels, of a size that the code stream tells, and none of a file with data missing."""

from __future__ import annotations

import numpy as np
import pytest
from hostile_formats import claiming, code_stream_claiming
from PIL import Image, features

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode
from tests.conftest import encode, picture
from tests.images.refused import status_of

pytestmark = pytest.mark.skipif(not features.check("jpg_2000"), reason="this build of Pillow has no JPEG 2000")

RGB = picture(97, 64)


def test_lossless_pixels_are_the_same() -> None:
    alpha = RGB.convert("RGBA")
    alpha.putalpha(7)
    sixteen = Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16) * 257)
    cases = {
        "colour": (RGB, RGB, {}),
        "code stream": (RGB, RGB, {"no_jp2": True}),
        "tiles": (RGB, RGB, {"tile_size": (32, 32)}),
        "grey": (RGB.convert("L"), RGB.convert("L"), {}),
        "alpha": (alpha, RGB, {}),
        "16 bits": (sixteen, RGB.convert("L"), {}),
        "CMYK": (RGB.convert("CMYK"), RGB.convert("CMYK"), {}),
    }
    for name, (image, expected, options) in cases.items():
        decoded = decode(encode(image, "JPEG2000", **options))
        assert np.array_equal(decoded.image, np.asarray(expected.convert("RGB"))), name
        assert (decoded.format, decoded.width, decoded.height) == ("jpeg2000", 97, 64)


def test_lossy_pixels_are_close() -> None:
    data = encode(RGB, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[20, 5])
    assert np.abs(decode(data).image.astype(int) - np.asarray(RGB)).mean() < 3


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}, {"tile_size": (32, 32)}, {"progression": "RPCL"}])
def test_a_file_cut_anywhere_is_corrupt(options: dict[str, object]) -> None:
    data = encode(RGB, "JPEG2000", **options)
    for cut in range(12, len(data) - 2, max(1, len(data) // 60)):
        assert status_of(data[:cut]) is Status.CORRUPT, cut


def test_limits() -> None:
    data = encode(RGB, "JPEG2000")
    assert status_of(code_stream_claiming(data, 60_000, 60_000)) is Status.TOO_LARGE
    assert status_of(claiming(data, b"ihdr", 60_000, 60_000)) is Status.TOO_LARGE
    assert status_of(code_stream_claiming(data, 10_000, 10_000, tile=1)) is Status.TOO_LARGE
    assert status_of(code_stream_claiming(data, 0, 64, tile=64)) is Status.CORRUPT
    with pytest.raises(ImageError, match="97x64 pixels; the limit is 100"):
        decode(data, max_pixels=100)

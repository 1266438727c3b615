"""JPEG XL: pixels of the first frame, and a header that is checked before anything is decoded."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hostile_formats import jpeg_xl, jpeg_xl_claiming

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode
from mlcls_ray.images.jpeg_xl_header import CONTAINER, find_code_stream, read_header
from tests.conftest import ROOT, picture
from tests.images.refused import status_of

RGB = picture(97, 64)
PIXELS = np.asarray(RGB)


def lossless(samples: np.ndarray, **options: object) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(samples, lossless=True, **options))


def test_lossless_pixels_are_the_same() -> None:
    grey = PIXELS[..., 0]
    three_greys = np.repeat(grey[..., None], 3, axis=2)
    cases = {
        "colour": (PIXELS, PIXELS),
        "grey": (grey, three_greys),
        "alpha": (np.dstack([PIXELS, grey]), PIXELS),
        "grey and alpha": (np.dstack([grey, PIXELS[..., 1]]), three_greys),
        "animated": (np.stack([PIXELS, 255 - PIXELS]), PIXELS),
    }
    for name, (samples, expected) in cases.items():
        decoded = decode(lossless(samples))
        assert np.array_equal(decoded.image, expected), name
        assert (decoded.format, decoded.width, decoded.height) == ("jxl", 97, 64)


@pytest.mark.parametrize("bits", [4, 10, 12, 16])
def test_other_depths_are_scaled_to_eight_bits(bits: int) -> None:
    highest = (1 << bits) - 1
    samples = (PIXELS.astype(np.int64) * highest // 255).astype(np.uint8 if bits < 8 else np.uint16)
    expected = samples.astype(int) >> (bits - 8) if bits > 8 else samples.astype(int) * 255 // highest
    data = lossless(samples, bitspersample=bits)
    assert read_header(find_code_stream(data)).bits == bits
    assert np.array_equal(decode(data).image, expected)


def test_lossy_pixels_are_close() -> None:
    assert np.abs(decode(jpeg_xl(RGB)).image.astype(int) - PIXELS).mean() < 3


def test_the_container_may_be_in_parts() -> None:
    """`jxlp` boxes, which a writer uses that streams."""
    stream = jpeg_xl(RGB)
    assert stream.startswith(b"\xff\x0a")
    brand = b"\0\0\0\x14ftypjxl \0\0\0\0jxl "

    def box(kind: bytes, payload: bytes) -> bytes:
        return (len(payload) + 8).to_bytes(4, "big") + kind + payload

    parts = box(b"jxlp", bytes(4) + stream[:100]) + box(b"jxlp", b"\x80\0\0\1" + stream[100:])
    for boxes in (box(b"jxlc", stream), parts, box(b"Exif", bytes(99)) + b"\0\0\0\0jxlc" + stream):
        assert np.array_equal(decode(CONTAINER + brand + boxes).image, decode(stream).image)
    assert status_of(CONTAINER + brand + parts[:-50]) is Status.CORRUPT
    assert status_of(CONTAINER + brand) is Status.CORRUPT


def test_a_file_cut_anywhere_is_corrupt() -> None:
    for data in (jpeg_xl(RGB), lossless(PIXELS), lossless(PIXELS.astype(np.uint16), bitspersample=16)):
        for cut in [*range(2, len(data), max(1, len(data) // 60)), len(data) - 1]:
            assert status_of(data[:cut]) in (Status.CORRUPT, Status.NOT_AN_IMAGE), cut


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (97, 64), (64, 64), (1200, 1000), (320, 180), (8, 2048), (70_000, 1)]
)
def test_the_header_tells_the_size(width: int, height: int) -> None:
    data = lossless(np.zeros((height, width, 3), np.uint8), effort=1)
    assert read_header(find_code_stream(data))[:2] == (width, height)


def test_limits() -> None:
    assert status_of(jpeg_xl_claiming(1 << 29, 1 << 29)) is Status.TOO_LARGE
    with pytest.raises(ImageError, match="97x64 pixels; the limit is 100"):
        decode(jpeg_xl(RGB), max_pixels=100)
    planes = np.zeros((12, 8, 8), np.uint8)
    assert status_of(bytes(imagecodecs.jpegxl_encode(planes, photometric="gray", planar=True))) is Status.TOO_LARGE


def test_floats_are_named() -> None:
    with pytest.raises(ImageError, match="floats") as caught:
        decode(lossless(PIXELS.astype(np.float32) / 255))
    assert caught.value.status is Status.UNSUPPORTED


def test_a_lossy_picture_with_an_icc_profile_is_not_dark() -> None:
    """libjxl gives linear light for it. The file was written by cjxl 0.7 from `RGB` with a wide profile; no binding here writes one."""
    data = (ROOT / "tests" / "fixtures" / "profile.jxl").read_bytes()
    assert read_header(data).is_linear
    assert abs(decode(data).image.mean() - PIXELS.mean()) < 3
    assert abs(imagecodecs.jpegxl_decode(data).mean() - PIXELS.mean()) > 20

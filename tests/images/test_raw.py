"""Camera RAW: the preview, upright. The files are small DNGs that the tests make; no camera's file is part of the project."""

from __future__ import annotations

import numpy as np
import pytest
from hostile_formats import dng
from PIL import Image

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode
from mlcls_ray.images.formats import find_reader
from tests.conftest import encode, picture

RGB = picture(96, 64)
JPEG = encode(RGB, quality=95)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(RGB, quality=95, exif=exif.tobytes())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_preview_is_turned_once(orientation: int) -> None:
    expected = decode(turned(orientation)).image
    for preview in (JPEG, turned(orientation)):
        decoded = decode(dng(preview, orientation, RGB.size))
        assert np.array_equal(decoded.image, expected)
        assert (decoded.format, decoded.height, decoded.width) == ("raw", *expected.shape[:2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_preview_may_be_a_bitmap(orientation: int) -> None:
    actual = decode(dng(orientation=orientation, size=RGB.size, bitmap=RGB.tobytes())).image
    assert np.abs(actual.astype(int) - decode(turned(orientation)).image).mean() < 4
    assert np.array_equal(decode(dng(size=RGB.size, bitmap=RGB.tobytes())).image, np.asarray(RGB))


def test_raw_is_told_from_a_plain_tiff() -> None:
    for data in (
        dng(JPEG, 1, RGB.size),
        dng(),
        b"FUJIFILMCCD-RAW " + bytes(100),
        b"II*\0\x10\0\0\0CR\2\0" + bytes(100),
    ):
        assert (reader := find_reader(data))
        assert reader.name == "camera RAW"
    assert (reader := find_reader(encode(RGB, "TIFF")))
    assert reader.name == "TIFF"


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (dng(), Status.UNSUPPORTED, "without a preview"),
        (dng(JPEG[: len(JPEG) // 2], 1, RGB.size), Status.CORRUPT, "end of data"),
        (b"FUJIFILMCCD-RAW " + bytes(500), Status.UNSUPPORTED, "camera RAW without"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500), Status.UNSUPPORTED, "camera RAW without"),
    ],
)
def test_what_has_no_whole_preview_is_named(data: bytes, status: Status, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        decode(data)
    assert caught.value.status is status


def test_a_file_cut_anywhere_gives_no_half_preview() -> None:
    data = dng(JPEG, 1, RGB.size)
    for cut in range(16, len(data), len(data) // 60):
        with pytest.raises(ImageError):
            decode(data[:cut])


def test_the_limit_holds_for_the_preview() -> None:
    with pytest.raises(ImageError, match="96x64 pixels; the limit is 100"):
        decode(dng(JPEG, 1, RGB.size), max_pixels=100)

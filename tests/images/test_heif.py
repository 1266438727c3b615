"""HEIC and HEIF: upright pixels of the primary picture, and no picture with a hole."""

from __future__ import annotations

import io
import struct

import numpy as np
import pillow_heif
import pytest
from hostile_formats import claiming, heic, with_hole
from PIL import Image

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode
from tests.conftest import encode, picture
from tests.images.refused import status_of

RGB = picture(96, 64)


def difference(data: bytes, expected: Image.Image) -> float:
    decoded = decode(data)
    assert (decoded.format, decoded.width, decoded.height) == ("heif", *expected.size)
    return float(np.abs(decoded.image.astype(int) - np.asarray(expected.convert("RGB"))).mean())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_pixels(mode: str) -> None:
    """Alpha is dropped, whatever lies under it."""
    image = RGB.convert(mode)
    if "A" in mode:
        image.putalpha(40)
    assert difference(heic(image), RGB.convert("L") if mode.startswith("L") else RGB) < 4


def test_tiles_are_put_together() -> None:
    assert difference(heic(picture(300, 200), tile=64), picture(300, 200)) < 4


def test_ten_bits_keep_their_high_byte() -> None:
    wide = np.asarray(RGB).astype(np.uint16) * 257
    stream = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", RGB.size, wide.tobytes()).save(stream, quality=95, chroma=444)
    assert difference(stream.getvalue(), RGB) < 4
    grey = np.asarray(RGB.convert("L")).astype(np.uint16) * 257
    stream = io.BytesIO()
    pillow_heif.from_bytes("I;16", RGB.size, grey.tobytes()).save(stream, quality=95)
    assert difference(stream.getvalue(), RGB.convert("L")) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_by_the_files_own_properties(orientation: int) -> None:
    """pillow-heif writes an EXIF orientation as `irot` and `imir`; the picture is turned once."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(encode(RGB, quality=95, exif=exif.tobytes())).image
    assert difference(heic(RGB, exif=exif.tobytes()), Image.fromarray(upright)) < 5


def test_an_exif_orientation_does_not_count() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    exif[0x010F] = "Maker"
    data = heic(RGB, exif=exif.tobytes())
    for order in "<>":
        entry = struct.pack(order + "HHIH", 0x0112, 3, 1, 1)
        data = data.replace(entry, entry[:-2] + struct.pack(order + "H", 6))
    assert pillow_heif.open_heif(data).info["exif"].count(b"\6") >= 1
    assert difference(data, RGB) < 4


def test_the_primary_picture_of_several() -> None:
    file = pillow_heif.HeifFile()
    for seed in range(3):
        file.add_from_pillow(picture(96, 64, seed))
    stream = io.BytesIO()
    file.save(stream, quality=90, chroma=444, primary_index=1)
    assert difference(stream.getvalue(), picture(96, 64, 1)) < 4


def test_a_file_cut_anywhere_is_corrupt() -> None:
    for data in (heic(RGB), heic(picture(300, 200), tile=64)):
        for cut in [*range(12, len(data), max(1, len(data) // 60)), len(data) - 1]:
            assert status_of(data[:cut]) is Status.CORRUPT, cut


def test_a_hole_in_the_picture_is_corrupt() -> None:
    """libde265 would fill it with grey."""
    for data, image in ((heic(RGB), RGB), (heic(picture(300, 200), tile=64), picture(300, 200))):
        start = data.index(b"mdat") / len(data)
        for share in (0.3, 0.6, 0.9):
            holed = with_hole(data, start + (1 - start) * share)
            assert np.abs(np.asarray(pillow_heif.open_heif(holed)).astype(int) - np.asarray(image)).mean() > 0.1
            assert status_of(holed) is Status.CORRUPT


def test_limits() -> None:
    assert status_of(claiming(heic(RGB), b"ispe", 60_000, 60_000)) is Status.TOO_LARGE
    with pytest.raises(ImageError, match="96x64 pixels; the limit is 100"):
        decode(heic(RGB), max_pixels=100)
    assert status_of(claiming(heic(RGB), b"ispe", 16, 16)) in (Status.CORRUPT, Status.TOO_LARGE)
    assert status_of(claiming(heic(RGB), b"ispe", 0, 64)) is Status.CORRUPT


def test_a_sequence_without_pictures_is_named() -> None:
    data = b"\0\0\0\x18ftyphevc\0\0\0\0hevcmsf1\0\0\0\x10moov" + bytes(8)
    with pytest.raises(ImageError, match="image sequence") as caught:
        decode(data)
    assert caught.value.status is Status.UNSUPPORTED

"""The header of a JPEG: what it says agrees with the decoder, a JPEG that is cut is not whole, and no bytes make it raise."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mlcls_ray.errors import ImageError
from mlcls_ray.images.decode import check_jpeg, decode
from mlcls_ray.images.jpeg_header import JpegHeader, can_decode_on_card, read_jpeg_header
from tests.conftest import encode, picture

LIMIT = 10**6


def header_of(data: bytes) -> JpegHeader:
    header = read_jpeg_header(data)
    assert header is not None
    return header


def on_card(data: bytes) -> bool:
    header = read_jpeg_header(data)
    return header is not None and can_decode_on_card(header, LIMIT)


def oriented(orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture(40, 24), exif=exif.tobytes(), **options)


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({}, (2, 2)),
        ({"subsampling": "4:4:4"}, (1, 1)),
        ({"subsampling": "4:2:2"}, (2, 1)),
        ({"progressive": True}, (2, 2)),
        ({"restart_marker_blocks": 2}, (2, 2)),
        ({"comment": b"\xff\xd9 is no end marker here"}, (2, 2)),
        ({"icc_profile": b"\xff\xd9" * 70_000}, (2, 2)),
    ],
)
def test_ordinary_jpegs(options: dict[str, object], sampling: tuple[int, int]) -> None:
    header = header_of(encode(picture(), **options))
    assert (header.width, header.height, header.components, header.sampling[0]) == (64, 48, 3, sampling)
    assert (header.is_progressive, header.scans > 1) == ("progressive" in options,) * 2
    assert header.is_ycc and header.is_whole and header.orientation == 1
    assert can_decode_on_card(header, LIMIT)
    assert not can_decode_on_card(header, 64 * 48 - 1), "larger than max_pixels"
    assert JpegHeader.unpack(header.pack()) == header


def test_grey() -> None:
    header = header_of(encode(picture().convert("L")))
    assert (header.components, header.sampling) == (1, ((1, 1),))
    assert can_decode_on_card(header, LIMIT)
    assert JpegHeader.unpack(header.pack()) == header


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_the_decoder(orientation: int) -> None:
    data = oriented(orientation)
    header, decoded = header_of(data), decode(data)
    assert header.orientation == orientation
    assert header.upright_size == (decoded.width, decoded.height)
    assert (header.width, header.height) == (40, 24)


def xmp(text: str) -> bytes:
    return encode(picture(), xmp=f"<x:xmpmeta><rdf:Description {text}/></x:xmpmeta>".encode())


def two_exifs() -> bytes:
    data = oriented(6)
    length = int.from_bytes(data[data.index(b"\xff\xe1") + 2 :][:2], "big") + 2
    start = data.index(b"\xff\xe1")
    return data[: start + length] + data[start : start + length] + data[start + length :]


ODD = {
    "cmyk": encode(picture().convert("CMYK")),
    "rgb": encode(picture(), keep_rgb=True),
    "orientation 9": oriented(9),
    "orientation in XMP": xmp('tiff:Orientation="6"'),
    "two EXIF segments": two_exifs(),
    "damaged EXIF": encode(picture(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xee" * 99),
    "png": encode(picture(), "PNG"),
    "nothing": b"",
    "start only": b"\xff\xd8\xff",
    "text": b"<html>",
}


@pytest.mark.parametrize("data", ODD.values(), ids=list(ODD))
def test_what_is_odd_is_left_to_the_cpu(data: bytes) -> None:
    assert not on_card(data)


def test_xmp_without_an_orientation_is_not_odd() -> None:
    assert on_card(xmp('dc:title="a"'))


def without_end(data: bytes, junk: bytes = b"") -> bytes:
    assert data.endswith(b"\xff\xd9")
    return data[:-2] + junk


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_is_not_for_the_card(progressive: bool) -> None:
    data = oriented(6, quality=95, progressive=progressive)
    assert on_card(data)
    assert on_card(data + b"\0" * 99), "bytes after the end marker are no harm"
    for end in range(len(data) - 1):
        assert not on_card(data[:end]), end
    for junk in (b"", b"\0" * 999, b"\xff" * 999, b"\xff\xd0" * 9):
        assert not on_card(without_end(data, junk))


@pytest.mark.parametrize("progressive", [False, True])
def test_an_end_marker_behind_half_the_data_is_found_by_the_check(progressive: bool) -> None:
    """The markers of such a file are in order; a progressive one that lacks a whole scan is as good as any other."""
    data = encode(picture(300, 200), quality=95, progressive=progressive)
    scan = data.index(b"\xff\xda")
    for tenth in range(1, 10):
        cut = data[: scan + 20 + (len(data) - scan - 20) * tenth // 10].rstrip(b"\xff") + b"\xff\xd9"
        assert check_jpeg(cut, LIMIT) is None, tenth


def test_end_marker_of_a_thumbnail_is_not_the_images() -> None:
    thumbnail = encode(picture(16, 12))
    exif = Image.Exif()
    exif[0x010E] = "x"
    data = encode(picture(), exif=exif.tobytes() + thumbnail)
    assert on_card(data)
    assert not on_card(data[: data.index(thumbnail) + len(thumbnail) + 200])


def test_too_many_scans() -> None:
    header = header_of(encode(picture(), progressive=True))
    assert not can_decode_on_card(header._replace(scans=5000), LIMIT)
    assert not can_decode_on_card(header._replace(is_progressive=False), LIMIT), "a baseline JPEG of several scans"


def mutated(count: int, seed: int = 0) -> list[bytes]:
    """JPEGs with some bytes changed, cut out or doubled, in the header as often as in the data."""
    random = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 8
    originals = [
        encode(picture(64, 48, seed=1), quality=90, exif=exif.tobytes()),
        encode(picture(64, 48, seed=2), progressive=True),
        encode(picture(64, 48, seed=3), restart_marker_blocks=1),
        encode(picture(40, 30).convert("L")),
    ]
    images = []
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        for _ in range(random.integers(1, 4)):
            most = len(data) if random.random() < 0.5 else min(len(data), 700)
            position = int(random.integers(0, most))
            kind = random.integers(0, 4)
            if kind == 0:
                data[position] = random.integers(0, 256)
            elif kind == 1:
                del data[position : position + int(random.integers(1, 40))]
            elif kind == 2:
                data[position:position] = data[position : position + int(random.integers(1, 40))]
            else:
                data[position : position + 2] = bytes([0xFF, int(random.integers(0xC0, 0xFF))])
        images.append(bytes(data))
    return images


def agrees(data: bytes) -> bool:
    """If the header says that the card may decode it, and the check accepts it, then the CPU decodes it, to the same size and turn."""
    header = read_jpeg_header(data)
    if header is None or not can_decode_on_card(header, LIMIT):
        return True
    small = check_jpeg(data, LIMIT)
    if small is None:
        return True
    try:
        decoded = decode(data, LIMIT)
    except ImageError:
        return False
    with Image.open(io.BytesIO(data)) as opened:
        orientation = opened.getexif().get(0x0112, 1)
        mode = {"L": 1, "RGB": 3}[opened.mode]
    return (
        header.upright_size == (decoded.width, decoded.height) == (small.width, small.height)
        and header.orientation == orientation
        and header.components == mode
    )


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_jpegs_are_judged_as_the_cpu_does(count: int) -> None:
    assert [data for data in mutated(count) if not agrees(data)] == []

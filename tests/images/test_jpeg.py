"""JPEG: `corrupt` means that pixels are missing or unsure, nothing else; and no file holds a worker for long."""

from __future__ import annotations

import struct
import time

import cv2
import numpy as np
import pytest
from hostile_images import EOI, first_scan_only, scan_bomb, without_adobe
from PIL import Image

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode
from tests.conftest import encode, picture

PHOTO = picture(160, 120)
BASELINE, PROGRESSIVE = encode(PHOTO, quality=90), encode(PHOTO, quality=90, progressive=True)
RESTARTS = encode(PHOTO, quality=90, restart_marker_blocks=4)
CMYK = encode(PHOTO.convert("CMYK"), quality=90)
GREY = encode(PHOTO.convert("L"), quality=90)
KINDS = {"baseline": BASELINE, "progressive": PROGRESSIVE, "restarts": RESTARTS, "cmyk": CMYK, "grey": GREY}


def status(data: bytes, min_size: tuple[int, int] | None = None) -> Status:
    try:
        decode(data, min_size=min_size)
    except ImageError as error:
        return error.status
    return Status.OK


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(payload) + 2) + payload


def in_front_of(data: bytes, marker: int, junk: bytes, last: bool = False) -> bytes:
    place = (data.rindex if last else data.index)(bytes([255, marker]))
    return data[:place] + junk + data[place:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("min_size", [None, (20, 20)])
def test_half_a_jpeg_is_corrupt(kind: str, share: float, min_size: tuple[int, int] | None) -> None:
    data = KINDS[kind]
    scan = data.index(b"\xff\xda")
    cut = data[: scan + int((len(data) - scan) * share)]
    assert status(cut, min_size) is Status.CORRUPT
    assert status(cut + EOI, min_size) is Status.CORRUPT
    assert status(cut + bytes(1000) + EOI, min_size) is Status.CORRUPT


def test_a_progressive_jpeg_that_was_cut_between_scans_is_corrupt() -> None:
    assert status(first_scan_only(PROGRESSIVE)) is Status.CORRUPT
    scans = [place for place in range(len(PROGRESSIVE)) if PROGRESSIVE[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        assert status(PROGRESSIVE[:scan] + EOI) is Status.CORRUPT


def test_lost_and_damaged_pieces_are_corrupt() -> None:
    lost = RESTARTS[: RESTARTS.index(b"\xff\xd2")] + RESTARTS[RESTARTS.index(b"\xff\xd3") :]
    assert status(lost) is Status.CORRUPT
    taller = bytearray(BASELINE)
    frame = taller.index(b"\xff\xc0")
    taller[frame + 5 : frame + 7] = (240).to_bytes(2, "big")
    assert status(bytes(taller)) is Status.CORRUPT


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_jpeg_without_its_last_bytes_is_ok(kind: str) -> None:
    data = KINDS[kind]
    expected = decode(data)
    for end in (b"", b"\xff", b"\0\0", bytes(5)):
        decoded = decode(data[:-2] + end)
        assert decoded.image.tobytes() == expected.image.tobytes(), end


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "junk before the end",
        "junk before the frame",
        "junk between scans",
        "trailing",
        "odd JFIF version",
        "fill bytes",
        "2,000 zeros",
    ],
)
def test_what_does_not_matter_costs_no_image(kind: str, name: str) -> None:
    data = KINDS[kind]
    frame = 0xC2 if kind == "progressive" else 0xC0
    odd = {
        "junk before the end": in_front_of(data, 0xD9, b"xy", last=True),
        "junk before the frame": in_front_of(data, frame, b"junk"),
        "junk between scans": in_front_of(data, 0xDA, b"\0\0\0", last=True),
        "trailing": data + b"\0" * 100 + data,
        "odd JFIF version": data.replace(b"JFIF\0\1", b"JFIF\0\x09"),
        "fill bytes": in_front_of(data, frame, b"\xff" * 50),
        "2,000 zeros": in_front_of(data, 0xD9, bytes(2000), last=True),
    }[name]
    assert decode(odd).image.tobytes() == decode(data).image.tobytes()


def test_an_odd_jfif_version_hides_no_missing_data() -> None:
    assert status((BASELINE[: len(BASELINE) // 2] + EOI).replace(b"JFIF\0\1", b"JFIF\0\x09")) is Status.CORRUPT


@pytest.mark.parametrize("transform", [None, 0, 2])
def test_cmyk_has_opencvs_pixels_with_and_without_adobes_marker(transform: int | None) -> None:
    data = without_adobe(CMYK)
    if transform is not None:
        data = data[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform])) + data[2:]
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(decode(data).image, expected)


@pytest.mark.parametrize(
    ("marker", "precision", "name"),
    [(0xC1, 12, "12-bit JPEG"), (0xF7, 8, "JPEG-LS"), (0xC5, 8, "hierarchical JPEG"), (0xC0, 16, "16-bit JPEG")],
)
def test_what_is_not_read_has_a_name(marker: int, precision: int, name: str) -> None:
    data = bytearray(BASELINE)
    frame = data.index(b"\xff\xc0")
    data[frame + 1], data[frame + 4] = marker, precision
    with pytest.raises(ImageError, match=name) as caught:
        decode(bytes(data))
    assert caught.value.status is Status.UNSUPPORTED


@pytest.mark.parametrize("factors", [0x31, 0x42, 0x13, 0x12])
def test_any_subsampling_is_read(factors: int) -> None:
    """A flat picture: two bits a block, whatever the blocks of an MCU are."""
    blocks = (factors >> 4) * (factors & 15) + 2
    mcus = -(-50 // (8 * (factors >> 4))) * -(-37 // (8 * (factors & 15)))
    bits = "00" * blocks * mcus
    bits += "1" * (-len(bits) % 8)
    data = b"".join(
        (
            b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64),
            segment(0xC0, struct.pack(">BHHB", 8, 37, 50, 3) + bytes([1, factors, 0, 2, 0x11, 0, 3, 0x11, 0])),
            segment(0xC4, b"\0\1" + bytes(16)), segment(0xC4, b"\x10\1" + bytes(16)), segment(0xDA, b"\3\1\0\2\0\3\0\0\x3f\0"),
            int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0"), EOI,
        )
    )  # fmt: skip
    assert (decode(data).image == 128).all()


def test_scans_are_bounded() -> None:
    few = scan_bomb(200, 20)
    assert decode(few).image.shape == (200, 200, 3)
    for bomb in (scan_bomb(2000, 5000), scan_bomb(13_000, 50)):
        started = time.perf_counter()
        assert status(bomb) is Status.TOO_LARGE
        assert time.perf_counter() - started < 1


def test_a_header_of_a_million_pieces_is_bounded() -> None:
    for filling in (segment(0xFE, b"") * 1_000_000, b"\xff" * 10_000_000, b"\0" * 10_000_000):
        started = time.perf_counter()
        assert status(BASELINE[:2] + filling + BASELINE[2:]) in (Status.TOO_LARGE, Status.OK, Status.CORRUPT)
        assert time.perf_counter() - started < 2


def test_a_large_photograph_needs_no_second_try() -> None:
    """Profiles, previews and trailing data of cameras raise no warning of libjpeg."""
    data = (
        BASELINE[:2]
        + segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000))
        + segment(0xE1, b"Exif\0\0" + GREY)
        + BASELINE[2:]
        + PROGRESSIVE
    )
    assert np.array_equal(decode(data).image, decode(BASELINE).image)
    assert np.array_equal(decode(data).image, np.asarray(Image.fromarray(decode(BASELINE).image)))

"""PNG: chunks that decide no pixel cost no image, missing rows do; and no file holds a worker for long."""

from __future__ import annotations

import io
import itertools
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from hostile_images import PNG, png, png_chunk
from PIL import Image

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode
from tests.conftest import encode, picture


def status(data: bytes) -> Status:
    try:
        decode(data)
    except ImageError as error:
        return error.status
    return Status.OK


def opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


MODES = [
    (0, 1),
    (0, 2),
    (0, 4),
    (0, 8),
    (0, 16),
    (2, 8),
    (2, 16),
    (3, 1),
    (3, 2),
    (3, 4),
    (3, 8),
    (4, 8),
    (4, 16),
    (6, 8),
    (6, 16),
]


def write(color_type: int, bits: int, is_transparent: bool) -> bytes:
    """A PNG of any mode, 24 × 16, with noise."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    rows = np.random.default_rng(0).integers(0, 256, (16, (24 * bits * samples + 7) // 8), dtype=np.uint8)
    header = struct.pack(">IIBBBBB", 24, 16, bits, color_type, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header)]
    if color_type == 3:
        chunks.append(png_chunk(b"PLTE", np.random.default_rng(1).bytes(3 << bits)))
    if is_transparent and color_type < 4:
        chunks.append(png_chunk(b"tRNS", bytes({0: 2, 2: 6, 3: 1 << bits}[color_type])))
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    return PNG + b"".join((*chunks, png_chunk(b"IDAT", zlib.compress(body)), png_chunk(b"IEND", b"")))


@pytest.mark.parametrize(("mode", "is_transparent"), itertools.product(MODES, [False, True]), ids=str)
def test_every_mode_has_opencvs_pixels(mode: tuple[int, int], is_transparent: bool) -> None:
    data = write(*mode, is_transparent)
    assert np.array_equal(decode(data).image, opencv(data))


@pytest.mark.parametrize(
    "kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"pHYs", b"gAMA", b"sRGB", b"eXIf", b"tRNS", b"acTL", b"fcTL", b"prVt"]
)
def test_a_damaged_chunk_that_decides_no_pixel_costs_no_image(kind: bytes) -> None:
    for chunk in (
        png_chunk(kind, b"anything\0\xff", is_damaged=True),
        png_chunk(kind, b"anything\0\xff"),
        png_chunk(kind, b""),
    ):
        data = png(24, 24, chunks=[chunk])
        assert np.array_equal(decode(data).image, decode(png(24, 24)).image)


def test_large_texts_and_profiles_cost_no_image_and_no_memory() -> None:
    for chunk in (
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64 << 20))),
        png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(64 << 20))),
        png_chunk(b"tEXt", b"Comment\0" + b"x" * (3 << 20)) * 3,
    ):
        assert status(png(24, 24, chunks=[chunk])) is Status.OK


@pytest.mark.parametrize("kept", [0, 1, 12, 23])
@pytest.mark.parametrize("color_type", [0, 2, 6])
def test_missing_rows_are_corrupt(kept: int, color_type: int) -> None:
    assert status(png(24, kept, color_type)) is Status.CORRUPT


def test_missing_rows_of_an_interlaced_png_are_corrupt() -> None:
    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 1)
    body = bytes(32 * 32 // 2)
    data = PNG + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(body)) + png_chunk(b"IEND", b"")
    assert status(data) is Status.CORRUPT


def test_what_is_missing_or_unsure_is_corrupt() -> None:
    palette = encode(picture().convert("P"), "PNG")
    start = palette.index(b"PLTE") - 4
    assert status(palette[:start] + palette[start + 12 + 768 :]) is Status.CORRUPT
    whole = png(24, 24)
    place = whole.index(b"IDAT") + 10
    assert status(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]) is Status.CORRUPT
    assert (
        status(PNG + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + png_chunk(b"IEND", b""))
        is Status.CORRUPT
    )
    assert status(png(24, 24).replace(b"IHDR", b"CgBI")) is Status.UNSUPPORTED


def test_the_end_may_be_missing() -> None:
    whole = png(24, 24)
    for end in (whole[:-12], whole[:-4], whole + b"trailing", whole[:-12] + b"\0\0"):
        assert np.array_equal(decode(end).image, decode(whole).image)


def test_an_animation_gives_its_default_image() -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ((255, 0, 0), (0, 255, 0))]
    stream = io.BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    assert (decode(stream.getvalue()).image == [255, 0, 0]).all()


def test_chunks_are_bounded() -> None:
    started = time.perf_counter()
    assert status(png(24, 24, chunks=[png_chunk(b"tEXt", b"") * 1_000_000])) is Status.TOO_LARGE
    assert time.perf_counter() - started < 2

"""Decoding gives the pixels that PaddleX gets from OpenCV; an image that cannot be read gets an error that says why."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import Decoded, decode
from tests.conftest import encode, picture


def opencv(data: bytes) -> np.ndarray:
    """Decode as PaddleX does: imdecode with IMREAD_COLOR, BGR turned to RGB."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def difference(data: bytes) -> int:
    return int(np.abs(decode(data).image.astype(int) - opencv(data).astype(int)).max())


RGB = picture(61, 43)
EXACT = {
    "jpeg 4:2:0": encode(RGB, quality=90),
    "jpeg 4:4:4": encode(RGB, quality=95, subsampling=0),
    "jpeg progressive": encode(RGB, quality=80, progressive=True),
    "jpeg grey": encode(RGB.convert("L")),
    "png": encode(RGB, "PNG"),
    "png grey": encode(RGB.convert("L"), "PNG"),
    "png 1 bit": encode(RGB.convert("1"), "PNG"),
    "png palette": encode(RGB.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "png alpha": encode(Image.merge("RGBA", (*RGB.split(), RGB.convert("L"))), "PNG"),
    "png grey and alpha": encode(Image.merge("LA", (RGB.convert("L"), RGB.convert("L"))), "PNG"),
    "png 16 bit grey": encode(Image.fromarray(np.arange(0, 61 * 43 * 24, 24, dtype=np.uint16).reshape(43, 61)), "PNG"),
    "bmp": encode(RGB, "BMP"),
    "webp": encode(RGB, "WEBP", lossless=True),
    "ppm": encode(RGB, "PPM"),
    "pgm": encode(RGB.convert("L"), "PPM"),
    "pbm": encode(RGB.convert("1"), "PPM"),
}


@pytest.mark.parametrize("kind", EXACT)
def test_pixels_equal_opencvs(kind: str) -> None:
    assert difference(EXACT[kind]) == 0


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    wide = np.asarray(RGB).astype(np.uint16) * 256 + 0x80
    _, data = cv2.imencode(".png", np.ascontiguousarray(wide[..., ::-1]))
    assert np.array_equal(decode(data.tobytes()).image, np.asarray(RGB))


def test_cmyk_jpeg_is_close_to_opencv() -> None:
    """OpenCV gives (255, 1, 1) for this red, Pillow (255, 0, 0). Pillow writes Adobe's inverted CMYK."""
    red = encode(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), quality=95)
    assert np.abs(decode(red).image.astype(int) - [255, 0, 0]).max() <= 2
    assert difference(red) <= 3


def test_ycck_jpeg_is_close_to_opencv() -> None:
    """Adobe's marker with transform 2: the same entropy-coded data, read as YCCK."""
    data = bytearray(encode(RGB.convert("CMYK"), quality=95))
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    data[marker + 11] = 2
    assert difference(bytes(data)) <= 3


def test_alpha_is_dropped_not_composited() -> None:
    transparent = encode(Image.new("RGBA", (4, 4), (200, 0, 0, 0)), "PNG")
    assert (decode(transparent).image == [200, 0, 0]).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    """Store an upright image in each orientation; decoding must give the upright image back."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = [250, 10, 10]  # a red corner and the shape together distinguish all eight
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = Image.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    image = decode(encode(stored, kind, exif=exif.tobytes() if kind != "TIFF" else exif, **options)).image
    assert image.shape == upright.shape
    assert np.abs(image[4:12, 4:12].astype(int) - [250, 10, 10]).max() < 12
    assert image[20:, 20:].max() < 12


def test_an_image_with_damaged_exif_is_decoded() -> None:
    data = encode(RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert decode(data).image.shape == (43, 61, 3)


def test_animations_and_documents_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ((255, 0, 0), (0, 255, 0))]
    for kind, more in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **more)
        assert np.abs(decode(data).image.astype(int) - [255, 0, 0]).max() <= 2, kind


@pytest.mark.skipif(not features.check("avif"), reason="this build of Pillow has no AVIF")
def test_avif() -> None:
    decoded = decode(encode(RGB, "AVIF", quality=95))
    assert decoded.format == "avif"
    assert np.abs(decoded.image.astype(int) - np.asarray(RGB)).mean() < 4


def test_format_is_the_container() -> None:
    assert [decode(EXACT[kind]).format for kind in ("jpeg 4:2:0", "png", "webp", "bmp", "ppm")] == [
        "jpeg", "png", "webp", "bmp", "ppm",
    ]  # fmt: skip


BAD = {
    "nothing": (b"", Status.EMPTY),
    "random bytes": (bytes(range(256)) * 4, Status.NOT_AN_IMAGE),
    "html": (b"<!doctype html><title>404</title>", Status.NOT_AN_IMAGE),
    "svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', Status.UNSUPPORTED),
    "pdf": (b"%PDF-1.7\n%....", Status.CORRUPT),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Status.UNSUPPORTED),
    "heic": (b"\0\0\0\x18ftypheic" + b"\0" * 32, Status.CORRUPT),
    "photoshop": (b"8BPS\0\1" + b"\0" * 32, Status.UNSUPPORTED),
    "jpeg magic only": (b"\xff\xd8\xff\xe0" + b"\0" * 40, Status.CORRUPT),
}


@pytest.mark.parametrize("kind", BAD)
def test_bytes_that_are_no_image_get_a_status_and_a_message(kind: str) -> None:
    data, status = BAD[kind]
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.status == status
    assert str(caught.value)


@pytest.mark.parametrize("kind", ["jpeg 4:2:0", "jpeg progressive", "png", "webp", "bmp"])
def test_a_file_cut_anywhere_is_corrupt_not_half_an_image(kind: str) -> None:
    data = EXACT[kind]
    for tenth in range(1, 10):
        with pytest.raises(ImageError) as caught:
            decode(data[: len(data) * tenth // 10])
        assert caught.value.status in (Status.CORRUPT, Status.NOT_AN_IMAGE)


def test_pixel_limit_is_checked_before_decoding() -> None:
    bomb = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 200_000
    with pytest.raises(ImageError) as caught:
        decode(bomb.getvalue())
    assert caught.value.status == Status.TOO_LARGE
    with pytest.raises(ImageError, match="61x43 pixels; the limit is 100"):
        decode(EXACT["png"], max_pixels=100)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([name for name in sorted(EXACT) if name.startswith(("jpeg", "png", "bmp"))]),
    position=st.floats(0, 1),
    values=st.binary(max_size=4),
)
def test_a_damaged_image_has_opencvs_pixels_or_none(kind: str, position: float, values: bytes) -> None:
    data = bytearray(EXACT[kind])
    start = int(position * (len(data) - 1))
    data[start : start + len(values)] = values
    try:
        image = decode(bytes(data)).image
    except ImageError:
        return
    # Where the end marker of a JPEG is damaged, OpenCV leaves out the last rows.
    with_end = [cv2.imdecode(np.frombuffer(data + end, np.uint8), cv2.IMREAD_COLOR) for end in (b"", b"\xff\xd9")]
    assert any(expected is None or np.array_equal(image, expected[..., ::-1]) for expected in with_end)


def _outcome(read: Callable[[], Decoded]) -> tuple[object, ...]:
    try:
        decoded = read()
    except ImageError as error:
        return (error.status, str(error))
    return (decoded.image.tobytes(), *decoded[1:])


def test_cmyk_equals_opencvs_conversion() -> None:
    ink = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    data = encode(Image.fromarray(ink, "CMYK").resize((64, 48), Image.Resampling.BICUBIC), "JPEG", quality=95)
    assert np.array_equal(decode(data).image, opencv(data))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(orientation: int) -> None:
    """A gradient keeps its colours; width and height are still those of the file, upright."""
    ramp = np.linspace(0, 255, 1600, dtype=np.uint8)
    stored = Image.fromarray(np.repeat(np.repeat(ramp[None, :, None], 1200, 0), 3, 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, "JPEG", quality=95, exif=exif.tobytes())
    full, scaled = decode(data), decode(data, min_size=(200, 300))
    assert (scaled.width, scaled.height) == (full.width, full.height) == full.image.shape[1::-1]
    height, width = scaled.image.shape[:2]
    assert 200 <= width < full.width / 2
    assert 300 <= height < full.height / 2
    small = np.asarray(Image.fromarray(full.image).resize((width, height), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - scaled.image).max() <= 6


def test_a_small_jpeg_is_decoded_whole() -> None:
    assert _outcome(lambda: decode(EXACT["jpeg 4:2:0"], min_size=(10_000, 10_000))) == _outcome(
        lambda: decode(EXACT["jpeg 4:2:0"])
    )


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(EXACT)), position=st.floats(0, 1), values=st.binary(min_size=1, max_size=6))
def test_damaged_bytes_never_raise_anything_else(kind: str, position: float, values: bytes) -> None:
    data = bytearray(EXACT[kind])
    start = int(position * (len(data) - 1))
    data[start : start + len(values)] = values
    try:
        image = decode(bytes(data), max_pixels=1_000_000).image
    except ImageError as error:
        assert error.status in (Status.CORRUPT, Status.NOT_AN_IMAGE, Status.TOO_LARGE, Status.UNSUPPORTED)
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_damaged_images() -> None:
    """Change, delete and repeat bytes: no crash, no other exception, no image above the limit, no more than a second each."""
    chance = np.random.default_rng(0)
    statuses = dict.fromkeys(Status, 0)
    longest = 0.0
    for number in range(100_000):
        data = bytearray(EXACT[sorted(EXACT)[number % len(EXACT)]])
        for _ in range(chance.integers(1, 5)):
            start = int(chance.integers(len(data)))
            length = int(chance.integers(1, 30))
            kind = chance.integers(3)
            if kind == 0:
                data[start : start + length] = chance.bytes(length)
            elif kind == 1 and len(data) > 100:
                del data[start : start + length]
            else:
                data[start:start] = data[start : start + length]
        started = time.perf_counter()
        try:
            assert decode(bytes(data), max_pixels=1_000_000).image.size <= 3_000_000
            statuses[Status.OK] += 1
        except ImageError as error:
            statuses[error.status] += 1
        longest = max(longest, time.perf_counter() - started)
    assert sum(statuses.values()) == 100_000
    assert statuses[Status.OK] > 1000
    assert statuses[Status.CORRUPT] > 1000
    assert longest < 1.0


def test_real_photographs_match_opencv(shared_data: Path) -> None:
    paths = sorted((shared_data / "coco_mini" / "images").iterdir())[::10]
    worst = [difference(path.read_bytes()) for path in paths]
    assert len(worst) >= 50
    assert max(worst) <= 2  # two builds of libjpeg-turbo; 0 on most

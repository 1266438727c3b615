"""TIFF: OpenCV's pixels, or `unsupported` with a name; never a black, wrapped or inverted picture."""

from __future__ import annotations

import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode, decode_pages
from mlcls_ray.images.tiff_tags import STRIP_COUNTS, STRIP_OFFSETS, read_directories
from tests.conftest import encode, picture
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
    WIDTH,
    Layout,
    gradient,
    write_tiff,
)


def layouts() -> list[Layout]:
    """Every combination that has a meaning."""
    found = []
    for bits, kind, photometric, planar, compression, order, extra in itertools.product(
        (1, 2, 4, 8, 12, 16, 32, 64), (UINT, INT, FLOAT), (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, LAB), (1, 2),
        (NONE, DEFLATE, PACKBITS), "<>", ((), (0,), (1,), (2,)),
    ):  # fmt: skip
        samples = {RGB: 3, CMYK: 4, LAB: 3}.get(photometric, 1) + len(extra)
        if (
            (kind == FLOAT and bits not in (16, 32, 64))
            or (photometric == PALETTE and bits > 8)
            or (planar == 2 and samples == 1)
        ):
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
        assert expected is None or layout.kind == INT, layout  # which OpenCV shows wrapped
    else:
        assert np.array_equal(actual, truth(layout) if expected is None else expected), layout


def truth(layout: Layout) -> np.ndarray:
    """The picture of a layout that OpenCV refuses and we read."""
    samples = gradient(layout)
    if layout.photometric == CMYK:
        return np.asarray(Image.fromarray((samples >> 8).astype(np.uint8), "CMYK").convert("RGB"))
    if layout.photometric == PALETTE:
        ramp = np.linspace(0, 0xFFFF, 1 << layout.bits).astype(int) >> 8
        return np.stack([ramp, ramp[::-1], np.roll(ramp, 3)], 1).astype(np.uint8)[samples[..., 0]]
    grey = samples.astype(int) * 255 // ((1 << layout.bits) - 1)
    return np.repeat(255 - grey if layout.photometric == WHITE_IS_ZERO else grey, 3, 2).astype(np.uint8)


@pytest.mark.parametrize("layout", SAMPLE, ids=str)
def test_a_sample_of_layouts(layout: Layout) -> None:
    check(layout)


@pytest.mark.slow
def test_all_layouts() -> None:
    for layout in ALL:
        check(layout)


def test_what_the_sweep_covers() -> None:
    """The usual layouts and those of public bug reports are read, and not by chance."""
    read = [
        Layout(16, photometric=WHITE_IS_ZERO, samples=1), Layout(16, planar=2),
        Layout(8, planar=2, order=">"), Layout(8, photometric=CMYK, samples=4),
        Layout(8, photometric=PALETTE, samples=1), Layout(1, photometric=WHITE_IS_ZERO, samples=1), Layout(16, samples=4, extra=(1,)),
    ]  # fmt: skip
    for layout in read:
        image = decode(write_tiff(layout)).image
        assert image.std() > 20
        assert np.array_equal(image, opencv(write_tiff(layout)))


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (Layout(32, FLOAT, BLACK_IS_ZERO, 1), "TIFF of 1 sample of 32-bit float"),
        (Layout(16, FLOAT, RGB, 3), "TIFF of 3 samples of 16-bit float"),
        (Layout(12, UINT, BLACK_IS_ZERO, 1), "TIFF of 1 sample of 12-bit"),
        (Layout(32, UINT, BLACK_IS_ZERO, 1), "TIFF of 1 sample of 32-bit"),
        (Layout(16, INT, BLACK_IS_ZERO, 1), "TIFF of 1 sample of 16-bit signed"),
        (Layout(8, UINT, RGB, 7, extra=(0, 0, 0, 0)), "TIFF of 7 samples of 8-bit"),
        (Layout(compression=34887), "compression LERC"),
        (Layout(compression=34712), "compression JPEG 2000"),
        (Layout(compression=50002), "compression JPEG XL"),
        (Layout(photometric=32844, samples=1), "log L"),
    ],
    ids=str,
)
def test_what_is_not_read_has_a_name(layout: Layout, name: str) -> None:
    with pytest.raises(ImageError, match=name) as caught:
        decode(write_tiff(layout))
    assert caught.value.status is Status.UNSUPPORTED


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_colour_map_of_8_bits_is_not_black(bits: int) -> None:
    """As libtiff: values below 256 were meant for 8 bits."""
    layout = Layout(bits, photometric=PALETTE, samples=1, color_map_bits=8)
    image, expected = decode(write_tiff(layout)).image, opencv(write_tiff(layout))
    assert image.max() == 255
    assert expected is None or np.array_equal(image, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tile", [0, 16])
def test_every_layout_is_turned(bits: int, tile: int, orientation: int) -> None:
    upright = decode(write_tiff(Layout(bits, tile=tile))).image
    turned = decode(write_tiff(Layout(bits, tile=tile, orientation=orientation))).image
    transpose = {
        2: 0, 3: Image.Transpose.ROTATE_180, 4: 1, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    expected = Image.fromarray(upright)
    if orientation in transpose:
        expected = expected.transpose(transpose[orientation])
    assert np.array_equal(turned, np.asarray(expected))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "raw"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK"])
def test_a_strip_that_ends_early_is_corrupt(compression: str, mode: str) -> None:
    data = bytearray(encode(picture(160, 120).convert(mode), "TIFF", compression=compression))
    directory = next(read_directories(bytes(data), 1))
    sizes = directory.entries[STRIP_COUNTS]
    place = sizes.place + 4 * (sizes.length - 1)
    struct.pack_into("<I", data, place, struct.unpack_from("<I", data, place)[0] // 2)
    with pytest.raises(ImageError) as caught:
        decode(bytes(data))
    assert caught.value.status is Status.CORRUPT


def test_pages_of_several_layouts() -> None:
    """Pages that Pillow decodes between pages that OpenCV decodes, each once although the last one points to the first."""
    pages = [
        Layout(16),
        Layout(8),
        Layout(16, photometric=WHITE_IS_ZERO, samples=1),
        Layout(8, photometric=BLACK_IS_ZERO, samples=1),
    ]
    data, starts, ends = b"", [], []
    for layout in pages:
        page = bytearray(write_tiff(layout))
        directory = next(read_directories(bytes(page), 1))
        for tag, entry in directory.entries.items():
            size = {3: 2, 4: 4}[entry.kind]
            values = directory.values(tag)
            if tag == STRIP_OFFSETS:
                struct.pack_into(f"<{len(values)}I", page, entry.place, *(value + len(data) for value in values))
            if size * entry.length > 4:
                entries = range(directory.offset + 2, len(page) - 4, 12)
                place = next(place for place in entries if struct.unpack_from("<H", page, place)[0] == tag)
                struct.pack_into("<I", page, place + 8, entry.place + len(data))
        starts.append(directory.offset + len(data))
        ends.append(len(data) + len(page) - 4)
        data += page
    document = bytearray(data)
    for end, following in zip(ends, [*starts[1:], starts[0]], strict=True):
        struct.pack_into("<I", document, end, following)
    struct.pack_into("<I", document, 4, starts[0])
    decoded = list(decode_pages(bytes(document)))
    assert len(decoded) == len(pages)
    for page, layout in zip(decoded, pages, strict=True):
        assert np.array_equal(page.image, opencv(write_tiff(layout)))


def test_directories_cannot_fill_memory() -> None:
    huge = write_tiff(Layout(tile=16)).replace(
        struct.pack("<HHII", 322, 4, 1, 16), struct.pack("<HHII", 322, 4, 1, 1 << 20)
    )
    for data in (
        huge,
        b"II*\0\x08\0\0\0\xff\xff" + bytes(200_000),
        b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + b"\xff" * 64,
    ):
        with pytest.raises(ImageError) as caught:
            decode(data)
        assert caught.value.status in (Status.CORRUPT, Status.TOO_LARGE)


def test_strips_that_overlap_are_not_read_for_ever() -> None:
    """A thousand strips of one row each, all of them the whole file."""
    image = np.zeros((1000, WIDTH, 1), np.uint8)
    data = bytearray(write_tiff(Layout(photometric=BLACK_IS_ZERO, samples=1), image) + bytes(1_000_000))
    fields = {256: WIDTH, 257: 1000, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    place = len(data)
    data += struct.pack("<1000I", *[8] * 1000) + struct.pack("<1000I", *[1_000_000] * 1000)
    directory = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items()]
    directory += [struct.pack("<HHII", 273, 4, 1000, place), struct.pack("<HHII", 279, 4, 1000, place + 4000)]
    struct.pack_into("<I", data, 4, len(data))
    data += struct.pack("<H", len(directory)) + b"".join(directory) + bytes(4)
    with pytest.raises(ImageError, match="overlap") as caught:
        decode(bytes(data))
    assert caught.value.status is Status.TOO_LARGE

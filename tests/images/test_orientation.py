"""An image is turned as OpenCV turns it: by its EXIF block, whatever the types in it, and never by XMP."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mlcls_ray.images.decode import decode, to_rgb
from mlcls_ray.images.orientation import read_orientation
from tests.conftest import encode, picture

STORED = picture(48, 32)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
SHORT, LONG, BYTE, ASCII = 3, 4, 1, 2


def exif(order: str, kind: int, value: bytes, count: int = 1, before: bytes = b"") -> bytes:
    """An EXIF block of one entry behind the entries `before`."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entries = before + struct.pack(order + "HHI", 0x0112, kind, count) + value.ljust(4, b"\0")
    return magic + struct.pack(order + "IH", 8, len(entries) // 12) + entries + bytes(4)


def jpeg(*segments: bytes) -> bytes:
    """A JPEG with these APP1 segments in front."""
    data = encode(STORED, quality=90)
    return data[:2] + b"".join(struct.pack(">BBH", 255, 0xE1, len(part) + 2) + part for part in segments) + data[2:]


def opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


BLOCKS = {
    "short": exif("<", SHORT, b"\6\0"),
    "short, big-endian": exif(">", SHORT, b"\0\6"),
    "long": exif("<", LONG, b"\6\0\0\0"),
    "long, big-endian": exif(">", LONG, b"\0\0\0\6"),
    "byte": exif("<", BYTE, b"\6"),
    "byte, big-endian": exif(">", BYTE, b"\6"),
    "text": exif("<", ASCII, b"6\0", 2),
    "two values": exif("<", SHORT, b"\3\0\6\0", 2),
    "a count that lies": exif("<", SHORT, b"\6\0", 999),
    "zero": exif("<", SHORT, b"\0\0"),
    "nine": exif("<", SHORT, b"\x09\0"),
    "first of two": exif("<", SHORT, b"\3\0", before=struct.pack("<HHI", 0x0112, SHORT, 1) + b"\6\0\0\0"),
    "behind another": exif("<", SHORT, b"\x08\0", before=struct.pack("<HHI", 0x0100, LONG, 1) + b"\1\0\0\0"),
    "cut": exif("<", SHORT, b"\6\0")[:14],
    "no TIFF header": b"Exif is not here",
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_jpeg_is_turned_as_opencv_turns_it(name: str) -> None:
    data = jpeg(b"Exif\0\0" + BLOCKS[name])
    assert np.array_equal(decode(data).image, opencv(data))


def test_xmp_turns_nothing() -> None:
    with_xmp = jpeg(b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    assert decode(with_xmp).image.shape == (32, 48, 3)
    assert np.array_equal(decode(with_xmp).image, opencv(with_xmp))
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    for data in (
        encode(STORED, "PNG", pnginfo=text),
        encode(STORED, "WEBP", xmp=XMP),
        encode(STORED, "TIFF", tiffinfo={700: XMP}),
    ):
        assert decode(data).image.shape == (32, 48, 3)


def test_xmp_before_exif_hides_no_orientation() -> None:
    """OpenCV looks at the first segment only; browsers at all."""
    data = jpeg(b"http://ns.adobe.com/xap/1.0/\0" + XMP, b"Exif\0\0" + BLOCKS["short"])
    assert decode(data).image.shape == (48, 32, 3)


def test_a_pillow_image_is_turned_as_its_file() -> None:
    for data in (jpeg(b"Exif\0\0" + BLOCKS["short"]), jpeg(b"http://ns.adobe.com/xap/1.0/\0" + XMP)):
        with Image.open(io.BytesIO(data)) as opened:
            assert to_rgb(opened).shape == decode(data).image.shape


def test_no_bytes_raise() -> None:
    block = BLOCKS["short"]
    assert read_orientation(block) == read_orientation(b"Exif\0\0" + block) == 6
    assert [read_orientation(block[:end]) for end in range(18)] == [1] * 18
    assert read_orientation(b"II*\0\xff\xff\xff\xff") == 1

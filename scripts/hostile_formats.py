"""HEIC, JPEG XL, JPEG 2000, camera RAW and documents for the hostile corpus: whole ones, damaged ones, and bombs."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pillow_heif
from hostile_images import encoded, photo
from PIL import Image


def heic(image: Image.Image, tile: int = 0, **options: object) -> bytes:
    """A HEIC; `tile`: of tiles of this side, as phones write them."""
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=90, chroma=444, tile_size=tile, **options)
    return stream.getvalue()


def jpeg_xl(image: Image.Image, **options: object) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(np.asarray(image), **options))


def with_hole(data: bytes, start: float, length: int = 64) -> bytes:
    """Put zeros into the picture, as a broken download or a damaged disk does."""
    place = int(len(data) * start)
    return data[:place] + bytes(min(length, len(data) - place)) + data[place + length :]


def claiming(data: bytes, kind: bytes, width: int, height: int) -> bytes:
    """Let every box of a kind, `ispe` of HEIF or `ihdr` of JPEG 2000, name another size."""
    changed = bytearray(data)
    place = changed.find(kind)
    while place >= 0:
        start = place + 4 + (4 if kind == b"ispe" else 0)
        numbers = (width, height) if kind == b"ispe" else (height, width)
        changed[start : start + 8] = struct.pack(">II", *numbers)
        place = changed.find(kind, place + 4)
    return bytes(changed)


def code_stream_claiming(data: bytes, width: int, height: int, tile: int | None = None) -> bytes:
    """Let the code stream of a JPEG 2000 name another size, and another side of its tiles."""
    changed = bytearray(data)
    start = changed.index(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">II", changed, start, width, height)
    struct.pack_into(">II", changed, start + 16, tile or width, tile or height)
    return bytes(changed)


def jpeg_xl_claiming(width: int, height: int) -> bytes:
    """The header of a JPEG XL of this size, and nothing behind it."""
    bits, place = 0, 0
    for value, count in ((0, 1), (3, 2), (height - 1, 30), (0, 3), (3, 2), (width - 1, 30), (1, 1)):
        bits |= value << place
        place += count
    return b"\xff\x0a" + bits.to_bytes(-(-place // 8), "little") + bytes(8)


def dng(jpeg: bytes = b"", orientation: int = 1, size: tuple[int, int] = (0, 0), bitmap: bytes = b"") -> bytes:
    """A small DNG: a first page with a preview, as a JPEG or a bitmap of `size`, and a sensor's pixels inside it."""
    out = bytearray(b"II*\0\0\0\0\0")

    def put(data: bytes) -> int:
        place = len(out)
        out.extend(data + bytes(len(data) % 2))
        return place

    def directory(*fields: tuple[int, str, object]) -> int:
        entries = b""
        for tag, form, value in sorted(fields):
            values = value if isinstance(value, (tuple, list, bytes)) else (value,)
            data = struct.pack(f"<{len(values)}{form}", *values)
            kind = {"B": 1, "H": 3, "I": 4}[form]
            entries += struct.pack("<HHI", tag, kind, len(values))
            entries += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", put(data))
        return put(struct.pack("<H", len(fields)) + entries + bytes(4))

    sensor = put(bytes(64 * 48 * 2))
    inside = directory(
        (254, "I", 0), (256, "I", 64), (257, "I", 48), (258, "H", 16), (259, "H", 1), (262, "H", 32803), (273, "I", sensor),
        (277, "H", 1), (278, "I", 48), (279, "I", 64 * 48 * 2), (33421, "H", (2, 2)), (33422, "B", (0, 1, 1, 2)),
    )  # fmt: skip
    data = jpeg or bitmap
    preview = (
        (256, "I", size[0]), (257, "I", size[1]), (258, "H", (8, 8, 8)), (259, "H", 7 if jpeg else 1), (262, "H", 6 if jpeg else 2),
        (273, "I", put(data)), (277, "H", 3), (278, "I", size[1]), (279, "I", len(data)),
    )  # fmt: skip
    first = directory(
        (254, "I", 1), (271, "B", b"Maker\0"), (272, "B", b"Model\0"), (274, "H", orientation), (330, "I", inside),
        (50706, "B", (1, 4, 0, 0)), (50708, "B", b"Maker Model\0"), *(preview if data else ()),
    )  # fmt: skip
    struct.pack_into("<I", out, 4, first)
    return bytes(out)


def document(kind: str, pages: int = 3, **options: object) -> bytes:
    """A TIFF or a PDF of pages that differ."""
    first, *others = (photo((72, 48), seed) for seed in range(pages))
    return encoded(first, kind, save_all=True, append_images=others, **options)


def format_files() -> dict[bytes, tuple[bytes, str]]:
    """Make the files: name → (content, status)."""
    image = photo((160, 120))
    phone, tiles = heic(image), heic(photo((256, 192)), tile=64)
    xl, j2k = jpeg_xl(image), encoded(image, "JPEG2000")
    preview = encoded(image, quality=90)
    raw = dng(preview, 6, image.size)
    return {
        b"good/phone.heic": (phone, "ok"),
        b"good/tiles.HEIC": (tiles, "ok"),
        b"good/alpha.heif": (heic(image.convert("RGBA")), "ok"),
        b"good/lossy.jxl": (xl, "ok"),
        b"good/animated.jxl": (bytes(imagecodecs.jpegxl_encode(np.stack([np.asarray(image)] * 3))), "ok"),
        b"good/scan.jp2": (j2k, "ok"),
        b"good/code-stream.j2k": (j2k[j2k.index(b"\xff\x4f\xff\x51") :], "ok"),
        b"good/camera.dng": (raw, "ok"),
        b"good/document.pdf": (document("PDF"), "ok"),
        b"good/document.tif": (document("TIFF"), "ok"),
        b"half/phone.heic": (phone[: len(phone) * 2 // 3], "corrupt"),
        b"half/hole.heic": (with_hole(phone, 0.7), "corrupt"),
        b"half/tiles.heic": (with_hole(tiles, 0.9), "corrupt"),
        b"half/lossy.jxl": (xl[: len(xl) * 2 // 3], "corrupt"),
        b"half/scan.jp2": (j2k[: len(j2k) * 2 // 3], "corrupt"),
        b"half/camera.dng": (dng(preview[: len(preview) // 2], 1, image.size), "corrupt"),
        b"half/document.pdf": (document("PDF")[:200], "corrupt"),
        b"not-read/no-preview.dng": (dng(), "unsupported"),
        b"not-read/float.jxl": (bytes(imagecodecs.jpegxl_encode(np.zeros((8, 8, 3), np.float32))), "unsupported"),
        b"not-read/sequence.heic": (b"\0\0\0\x18ftyphevc\0\0\0\0hevcmsf1\0\0\0\x10moov" + bytes(8), "unsupported"),
        b"bomb/heic.heic": (claiming(phone, b"ispe", 60_000, 60_000), "too_large"),
        b"bomb/jxl.jxl": (jpeg_xl_claiming(1 << 29, 1 << 29), "too_large"),
        b"bomb/jp2.jp2": (code_stream_claiming(j2k, 60_000, 60_000), "too_large"),
        b"bomb/box.jp2": (claiming(j2k, b"ihdr", 60_000, 60_000), "too_large"),
        b"slow/tiles.jp2": (code_stream_claiming(j2k, 10_000, 10_000, tile=1), "too_large"),
    }  # fmt: skip

"""Images that are not what they say, for the hostile corpus: half ones, whole ones that look damaged, and files that take for ever."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
EOI = b"\xff\xd9"


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photo(size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def png_chunk(kind: bytes, data: bytes, is_damaged: bool = False) -> bytes:
    checksum = zlib.crc32(kind + data) ^ (0xFF if is_damaged else 0)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(rows: int, kept: int, color_type: int = 2, chunks: Sequence[bytes] = (), width: int = 32) -> bytes:
    """A PNG of `rows` rows whose data have `kept` of them, with `chunks` before the data."""
    samples = {0: 1, 2: 3, 3: 1, 6: 4}[color_type]
    body = b"".join(b"\0" + bytes(range(row, row + width)) * samples for row in range(kept))
    header = struct.pack(">IIBBBBB", width, rows, 8, color_type, 0, 0, 0)
    pieces = (png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(body)), png_chunk(b"IEND", b""))
    return PNG + b"".join(pieces)


def scan_bomb(side: int = 2000, scans: int = 2000) -> bytes:
    """A grey progressive JPEG of tiny scans, each of which is a pass over all coefficients."""
    blocks = ((side + 7) // 8) ** 2
    scan = _segment(0xDA, b"\1\1\0\1\x3f\0") + _packed(("0" + "1" * 14) * (blocks // 32767 + 1))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xDB, b"\0" + b"\1" * 64),
            _segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"),
            _segment(0xC4, b"\0\1" + bytes(15) + b"\0"),
            _segment(0xDA, b"\1\1\0\0\0\0") + _packed("0" * blocks),
            _segment(0xC4, b"\x10\1\1" + bytes(14) + b"\xe0\0"),
            scan * scans,
            EOI,
        )
    )


def _with_height(jpeg: bytes, height: int) -> bytes:
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">H", height) + jpeg[frame + 7 :]


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _packed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def first_scan_only(jpeg: bytes) -> bytes:
    """Cut a progressive JPEG behind its first scan, and end it properly."""
    first = jpeg.index(b"\xff\xda")
    later = min(place for marker in (b"\xff\xda", b"\xff\xc4") if (place := jpeg.find(marker, first + 2)) > 0)
    return jpeg[:later] + EOI


def without_adobe(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def tiff(
    bits: int,
    kind: int,
    samples: int,
    data: bytes,
    size: tuple[int, int],
    tile: int = 0,
    following: int = 0,
    photometric: int | None = None,
    order: str = "<",
    planes: int = 1,
) -> bytes:
    """A TIFF of one tile, or of one strip for each plane.

    `kind`: 1 unsigned, 2 signed, 3 float. `following`: offset of the next page. `photometric`: by default 1 (black is zero) or 2 (RGB).
    `order`: of the bytes, "<" or ">"; of `data` too.
    """
    width, height = size
    strip = len(data) // planes
    places = [8 + strip * plane for plane in range(planes)]
    usual = 1 if samples == 1 else 2
    fields: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: (bits,) * samples, 259: (1,), 262: (usual if photometric is None else photometric,),
        277: (samples,), 284: (2 if planes > 1 else 1,), 339: (kind,) * samples,
        **({322: (tile,), 323: (tile,), 324: (8,), 325: (len(data),)} if tile else
           {273: tuple(places), 278: (height,), 279: (strip,) * planes}),
    }  # fmt: skip
    behind = 8 + len(data) + 2 + 12 * len(fields) + 4
    directory, values = struct.pack(f"{order}H", len(fields)), b""
    for tag, numbers in sorted(fields.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack(f"{order}I", behind + len(values)), values + packed
        directory += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    return head + data + directory + struct.pack(f"{order}I", following) + values


def layouts() -> dict[bytes, tuple[bytes, str]]:
    """Make TIFFs of layouts that a naive reader takes for others: name → (content, status)."""
    size = (64, 48)
    ramp = np.arange(64 * 48, dtype="<u2").reshape(48, 64) * np.uint16(20)
    color = np.stack([ramp, ramp // 2, 65_535 - ramp], axis=-1).astype("<u2")
    planes = np.moveaxis(color, -1, 0).tobytes()
    narrow = (color >> 8).astype(np.uint8)
    return {
        b"layout/planar-16.tif": (tiff(16, 1, 3, planes, size, planes=3), "ok"),
        b"layout/big-endian-16.tif": (tiff(16, 1, 3, color.astype(">u2").tobytes(), size, order=">"), "ok"),
        b"layout/tiled.tif": (tiff(8, 1, 3, narrow.tobytes() + bytes(64 * 16 * 3), size, tile=64), "ok"),
        b"layout/white-is-zero-16.tif": (tiff(16, 1, 1, ramp.tobytes(), size, photometric=0), "ok"),
        b"layout/unsigned-32.tif": (tiff(32, 1, 1, ramp.astype("<u4").tobytes(), size), "unsupported"),
        b"layout/float-16.tif": (tiff(16, 3, 1, ramp.astype("<f2").tobytes(), size), "unsupported"),
        b"layout/float-64.tif": (tiff(64, 3, 1, ramp.astype("<f8").tobytes(), size), "unsupported"),
        b"layout/float-rgb.tif": (tiff(32, 3, 3, (color / 65_535).astype("<f4").tobytes(), size), "unsupported"),
        b"layout/seven-bands.tif": (tiff(8, 1, 7, bytes(64 * 48 * 7), size), "unsupported"),
        b"layout/no-palette.tif": (tiff(8, 1, 1, narrow[..., 0].tobytes(), size, photometric=3), "corrupt"),
    }


def image_files() -> dict[bytes, tuple[bytes, str]]:
    """Make the files: name → (content, status)."""
    jpeg = encoded(photo((160, 120)), quality=90)
    progressive = encoded(photo((160, 120)), quality=90, progressive=True)
    cmyk = encoded(photo().convert("CMYK"), quality=95)
    palette = encoded(photo().convert("P"), "PNG")
    start = palette.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(palette[start : start + 4], "big")
    floats = np.linspace(0, 1, 64 * 48, dtype="<f4").tobytes()
    text = png_chunk(b"tEXt", b"Comment\0caf\xe9", is_damaged=True)
    long_text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * (3 << 20)))
    gif = encoded(photo(), "GIF")
    webp, bmp, ppm = (encoded(photo(), kind) for kind in ("WEBP", "BMP", "PPM"))
    plain_png = png(24, 24)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    extension = b"\x21\xfe" + b"\1x" * 400_000 + b"\0"
    circle = tiff(8, 1, 1, bytes(64 * 48), (64, 48), following=8 + 64 * 48)
    return {
        b"half/jpeg.jpg": (jpeg[: len(jpeg) // 2] + EOI, "corrupt"),
        b"half/progressive.jpg": (progressive[: len(progressive) // 2] + EOI, "corrupt"),
        b"half/first-scan.jpg": (first_scan_only(progressive), "corrupt"),
        b"half/cmyk.jpg": (cmyk[: len(cmyk) * 2 // 3] + EOI, "corrupt"),
        b"half/png.png": (png(24, 12), "corrupt"),
        b"half/no-palette.png": (palette[:start] + palette[end:], "corrupt"),
        b"half/90-percent.jpg": (jpeg[: len(jpeg) * 9 // 10] + EOI, "corrupt"),
        b"half/zeros-inside.jpg": (jpeg[: len(jpeg) // 2] + bytes(300) + jpeg[len(jpeg) // 2 + 300 :], "corrupt"),
        b"half/twice-as-high.jpg": (_with_height(jpeg, 240), "corrupt"),
        b"half/header-checksum.png": (plain_png[:29] + b"\0\0\0\0" + plain_png[33:], "corrupt"),
        b"half/last-row.png": (png(24, 23), "corrupt"),
        b"half/webp.webp": (webp[: len(webp) // 2], "corrupt"),
        b"half/gif.gif": (gif[: len(gif) * 2 // 3], "corrupt"),
        b"half/bmp.bmp": (bmp[:-100], "corrupt"),
        b"half/ppm.ppm": (ppm[:-1], "corrupt"),
        b"half/tiff.tif": (tiff(8, 1, 1, bytes(64 * 20), (64, 48)), "corrupt"),
        b"whole/no-end.jpg": (jpeg[:-2], "ok"),
        b"whole/no-end-zeros.jpg": (jpeg[:-2] + b"\0\0", "ok"),
        b"whole/junk-at-end.jpg": (jpeg[:-2] + b"\0" * 2000 + EOI, "ok"),
        b"whole/cmyk-no-adobe.jpg": (without_adobe(cmyk), "ok"),
        b"whole/xmp-orientation.jpg": (jpeg[:2] + _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp) + jpeg[2:], "ok"),
        b"whole/no-end.png": (plain_png[:-12], "ok"),
        b"whole/extra-rows.png": (png(24, 30), "ok"),
        b"whole/no-trailer.gif": (gif[:-1], "ok"),
        b"whole/text-checksum.png": (png(24, 24, chunks=[text]), "ok"),
        b"whole/long-text.png": (png(24, 24, chunks=[long_text]), "ok"),
        b"whole/circle.tif": (circle, "ok"),
        b"not-read/float.tif": (tiff(32, 3, 1, floats, (64, 48)), "unsupported"),
        b"not-read/signed.tif": (tiff(16, 2, 1, bytes(2 * 64 * 48), (64, 48)), "unsupported"),
        b"not-read/12-bit.tif": (tiff(12, 1, 1, bytes(64 * 48 * 3 // 2), (64, 48)), "unsupported"),
        b"not-read/12-bit.jpg": (jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "unsupported"),
        b"not-read/lossless.jpg": (jpeg.replace(b"\xff\xc0\0\x11", b"\xff\xf7\0\x11"), "unsupported"),
        b"not-read/hierarchical.jpg": (jpeg.replace(b"\xff\xc0\0\x11", b"\xff\xc5\0\x11"), "unsupported"),
        b"not-read/jpeg-inside.bmp": (bmp[:30] + struct.pack("<I", 4) + bmp[34:], "unsupported"),
        b"not-read/float.pfm.jpg": (b"PF\n2 2\n-1.0\n" + bytes(48), "unsupported"),
        b"not-read/utf16.svg.jpg": ("<svg xmlns='http://www.w3.org/2000/svg'/>".encode("utf-16"), "unsupported"),
        b"not-read/qoi.jpg": (b"qoif" + bytes(40), "unsupported"),
        b"slow/scans.jpg": (scan_bomb(), "too_large"),
        b"slow/large-scans.jpg": (scan_bomb(13_000, 40), "too_large"),
        b"slow/segments.jpg": (jpeg[:2] + b"\xff\xfe\0\2" * 200_000 + jpeg[2:], "too_large"),
        b"slow/chunks.png": (png(24, 24, chunks=[png_chunk(b"tEXt", b"") * 300_000]), "too_large"),
        b"slow/blocks.gif": (gif[:13] + gif[13 : 13 + 3 * 2 ** ((gif[10] & 7) + 1)] + extension
                             + gif[13 + 3 * 2 ** ((gif[10] & 7) + 1) :], "too_large"),
        b"slow/tile.tif": (tiff(8, 1, 1, b"", (16, 16), tile=60_000), "too_large"),
    } | layouts()  # fmt: skip

"""Write a folder of what real corpora contain and nobody expects: damaged files, bombs, odd names, things that are no files.

`write_corpus` also returns what mlcls_ray promises for each file: its status, or None where the listing leaves it out.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from hostile_formats import format_files
from hostile_images import encoded, image_files, png_chunk
from hostile_inputs import write_inputs
from PIL import Image, ImageCms

Expected = dict[bytes, str | None]
"""File name (bytes, relative to the folder) → status; None: not listed."""


def _image(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def _png_bomb() -> bytes:
    """Claim 60,000 × 60,000 pixels; the data is 10 MB of zeros, compressed."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 10_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def _png_text_bomb() -> bytes:
    """Put a compressed text of 256 MB into a small image."""
    data = encoded(_image(), "PNG")
    text = b"Comment\0\0" + zlib.compress(b"\0" * (256 << 20), 9)
    return data[:33] + png_chunk(b"zTXt", text) + data[33:]


def _jpeg_bomb() -> bytes:
    """Claim 65,500 × 65,500 pixels in a small JPEG's frame header."""
    data = bytearray(encoded(_image()))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


def _gif_bomb() -> bytes:
    data = bytearray(encoded(_image(), "GIF"))
    data[6:10] = struct.pack("<HH", 65_535, 65_535)
    return bytes(data)


def _webp_bomb() -> bytes:
    """Claim 16,384 × 16,384 pixels in the header of a lossless WebP."""
    data = bytearray(encoded(_image(), "WEBP", lossless=True))
    header = data.index(b"VP8L") + 9  # after the chunk's size and the signature byte 0x2f
    old = struct.unpack_from("<I", data, header)[0]
    struct.pack_into("<I", data, header, (old & ~0x0FFF_FFFF) | 0x3FFF | 0x3FFF << 14)
    return bytes(data)


def _tiff_bomb() -> bytes:
    """Claim 100,000 × 100,000 pixels in one strip without data."""
    fields = [
        (256, 4, 100_000), (257, 4, 100_000), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
        (278, 4, 100_000), (279, 4, 4),
    ]  # fmt: skip
    directory = struct.pack("<H", len(fields))
    for tag, kind, value in fields:
        directory += struct.pack("<HHI", tag, kind, 1) + (
            struct.pack("<I", value) if kind == 4 else struct.pack("<HH", value, 0)
        )
    return struct.pack("<2sHI", b"II", 42, 8) + directory + struct.pack("<I", 0)


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("photo.jpg", encoded(_image()))
    return stream.getvalue()


def _many_frames() -> bytes:
    frames = [Image.new("P", (8, 8), number % 256) for number in range(10_000)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _files() -> dict[bytes, tuple[bytes, str]]:
    """Make the regular files: name → (content, status)."""
    jpeg = encoded(_image(), quality=90)
    frames = [_image(seed) for seed in (1, 2)]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20
    files = {
        b"bad/zero.jpg": (b"", "empty"),
        b"bad/random.jpg": (np.random.default_rng(0).bytes(5000), "not_an_image"),
        b"bad/page.jpg": (b"<!doctype html><title>404 Not Found</title>", "not_an_image"),
        b"bad/bbcode.jpg": (b"[/foo] hello, this is no image", "not_an_image"),
        b"bad/escape.jpg": (b"\x1b]0;title\x07\x1b[2J[b]\n\r", "not_an_image"),
        b"bad/zip.jpg": (_zip(), "not_an_image"),
        b"bad/vector.jpg": (b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', "unsupported"),
        b"bad/phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200, "corrupt"),
        b"bad/document.jpg": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "corrupt"),
        b"bad/postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit\n", "unsupported"),
        b"bomb/png.png": (_png_bomb(), "too_large"),
        b"bomb/jpeg.jpg": (_jpeg_bomb(), "too_large"),
        b"bomb/gif.gif": (_gif_bomb(), "too_large"),
        b"bomb/webp.webp": (_webp_bomb(), "too_large"),
        b"bomb/tiff.tiff": (_tiff_bomb(), "too_large"),
        b"bomb/text.png": (_png_text_bomb(), "ok"),
        b"good/10000-frames.gif": (_many_frames(), "ok"),
        b"good/animated.png": (encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), "ok"),
        b"good/16-bit.png": (encoded(Image.fromarray(wide), "PNG"), "ok"),
        b"good/cmyk.jpg": (encoded(_image().convert("CMYK")), "ok"),
        b"good/icc.jpg": (encoded(_image(), icc_profile=profile), "ok"),
        b"good/corrupt-exif.jpg": (encoded(_image(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xee" * 99), "ok"),
        b"good/one-pixel.png": (encoded(Image.new("RGB", (1, 1))), "ok"),
        b"good/one-line.jpg": (encoded(_image(size=(5000, 1))), "ok"),
    }
    files |= {b"bad/cut-%d.jpg" % tenth: (jpeg[: len(jpeg) * tenth // 10], "corrupt") for tenth in range(1, 10)}
    files |= {b"good/turned-%d.jpg" % turn: (encoded(_image(turn), exif=_exif(turn)), "ok") for turn in range(1, 9)}
    names = [
        b"with space.jpg", b"line\nbreak.jpg", b"quote'\".jpg", b"100%.jpg", b"%41.jpg", b"hash#.jpg", b"question?.jpg",
        b"star*.jpg", b"[1].jpg", "写真 📷.jpg".encode(), b"latin-\xe9.jpg", b"back\\slash.jpg", b"-dash.jpg", b"n" * 251 + b".jpg",
        b"UPPER.JPG", b"file:colon.jpg", b"[x].jpg", b"[b]bold.jpg", b"[red].jpg", b":dog:.jpg", b"=1+1.jpg", b"<b>&amp;.jpg", b"$(id).jpg",
        b"`id`.jpg", b"clear\x1b[2J\x1b[31m.jpg", b"bell\x07\x08.jpg", "csi\x9b2J.jpg".encode(), "turned\u202egpj.exe.jpg".encode(),
        b"tab\t.jpg", b"return\r.jpg",
    ]  # fmt: skip
    return files | image_files() | format_files() | {b"names/" + name: (jpeg, "ok") for name in names}


def write_corpus(folder: Path) -> Expected:
    """Write the corpus into a new folder, and one file beside it; returns the expected status of each entry."""
    root = os.fsencode(folder)
    expected: Expected = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = _files()
    for name, (data, status) in files.items():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(data)
        expected[name] = status
    strange = os.path.join(root, b"strange")
    os.makedirs(os.path.join(strange, b"folder.jpg"))
    outside = os.path.join(os.path.dirname(root), os.path.basename(root) + b".outside.jpg")
    with open(outside, "wb") as stream:
        stream.write(encoded(_image()))
    os.mkfifo(os.path.join(strange, b"fifo.jpg"))
    os.symlink(b"loop.jpg", os.path.join(strange, b"loop.jpg"))
    os.symlink(b"..", os.path.join(strange, b"up"))
    os.symlink(b"nowhere.jpg", os.path.join(strange, b"dangling.jpg"))
    os.symlink(outside, os.path.join(strange, b"link-out.jpg"))
    os.symlink(b"/dev/zero", os.path.join(strange, b"endless.jpg"))
    _socket(os.path.join(strange, b"socket.jpg"))
    return expected | {
        b"strange/folder.jpg": None, b"strange/fifo.jpg": None, b"strange/up": None, b"strange/socket.jpg": None,
        b"strange/endless.jpg": None, b"strange/loop.jpg": "missing", b"strange/dangling.jpg": "missing",
        b"strange/link-out.jpg": "ok",
    }  # fmt: skip


def _socket(path: bytes) -> None:
    """Make a socket's file. It is bound by a relative name, because the path of a socket has at most 107 bytes."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    before = os.open(".", os.O_RDONLY)
    try:
        os.fchdir(folder)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.basename(path))
    finally:
        os.fchdir(before)
        os.close(folder)
        os.close(before)


def main() -> None:
    if len(sys.argv) != 2 or os.path.exists(sys.argv[1]):
        sys.exit("usage: scripts/hostile_corpus DIR (a folder that does not exist yet)")
    folder = sys.argv[1].rstrip("/")
    expected = {os.fsdecode(name): status for name, status in write_corpus(Path(folder)).items()}
    _write_expected(f"{folder}.expected.tsv", expected)
    inputs = write_inputs(Path(f"{folder}.inputs"))
    _write_expected(f"{folder}.inputs.expected.tsv", inputs)
    print(f"{folder}: {len(expected)} entries; {folder}.inputs: {len(inputs)} rows of lists and archives")


def _write_expected(path: str, expected: Mapping[str, str | None]) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("file\tstatus\n")
        for name, status in sorted(expected.items()):
            stream.write(f"{name!a}\t{status or 'not listed'}\n")


if __name__ == "__main__":
    main()

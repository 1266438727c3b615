"""The image formats: those that are read, and the names of those that are not, by their first bytes."""

from __future__ import annotations

import re

from PIL import Image, features

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images import bmp, brands, heif, jpeg_2000, jpeg_xl, pdf, png, raw, tiff
from mlcls_ray.images.decoded import Pages, Reader, corrupt, unsupported

Image.init()
FORMATS = tuple(name for name in ("DIB", "WEBP", "GIF", "PPM", "SUN", "AVIF") if name in Image.OPEN)
"""Pillow's names of the formats that it opens for us (most builds have AVIF), besides JPEG, PNG, TIFF and BMP, which have modules of
their own here. No other format is tried: Pillow's EPS reader, for one, starts a program."""

READERS = (
    png.READER, heif.READER, raw.READER, tiff.READER, bmp.READER, jpeg_xl.READER, jpeg_2000.READER, pdf.READER,
)  # fmt: skip
"""The formats with a module here, one line for each; besides JPEG, which is decoded at a fraction of its size as well.

Camera RAW is told before TIFF, which most of it looks like."""

_SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".sr", ".ras", ".avif",
    )
)  # fmt: skip
SUFFIXES = _SUFFIXES.union(*(reader.suffixes for reader in READERS if reader.is_installed))
"""The file name suffixes, in lower case, by which a folder's images are found: not those of formats whose extra is not installed."""

DOCUMENT_SUFFIXES = tuple(
    suffix for reader in READERS if reader.pages and reader.is_installed for suffix in reader.suffixes
)
"""The suffixes of formats that have pages."""

_READ = (b"\xff\xd8", b"\x89PNG", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x59\xa6\x6a\x95")
_NOT_READ = {
    b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript", b"8BPS": "Photoshop", b"gimp xcf": "GIMP's XCF",
    b"II\xbc": "JPEG XR", b"\x97JB2\r\n\x1a\n": "JBIG2", b"\x8aMNG\r\n\x1a\n": "MNG", b"\x8bJNG\r\n\x1a\n": "JNG",
    b"\0\0\1\0": "ICO", b"icns": "ICNS", b"v/1\x01": "OpenEXR", b"#?RADIANCE": "Radiance HDR", b"#?RGBE": "Radiance HDR",
    b"qoif": "QOI", b"DDS ": "DDS", b"\xabKTX ": "KTX", b"FLIF": "FLIF", b"BPG\xfb": "BPG", b"AT&TFORM": "DjVu", b"SIMPLE  =": "FITS",
    b"SDPX": "DPX", b"XPDS": "DPX", b"\x80\x2a\x5f\xd7": "Cineon", b"\x01\xda": "SGI image", b"/* XPM": "XPM", b"FORM": "IFF image",
    b"\xd7\xcd\xc6\x9a": "WMF", b"P7\n": "PAM", b"PF\n": "PFM", b"Pf\n": "PFM", b"NITF": "NITF", b"\x89HDF": "HDF5",
}  # fmt: skip
_PCX = re.compile(rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]")
_TGA_END = b"TRUEVISION-XFILE.\0"
_UTF16 = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
_SPACE = re.compile(r"[\ufeff\s]*")
_SVG = re.compile(r"<(\w+:)?svg[\s/>]", re.IGNORECASE)
_PASSED_OVER = (("<!--", "-->"), ("<?", "?>"), ("<!", ">"))
"""The texts that may precede the first element of XML, and how it ends."""
_LOOKED_AT = 64 << 10
"""Bytes in which an SVG's first element is looked for, behind its comments."""


def find_reader(image_bytes: bytes) -> Reader | None:
    """The reader of a file's format, by its first bytes; None where JPEG's decoder or Pillow is the one, or none."""
    return next((reader for reader in READERS if reader.is_it(image_bytes)), None)


def find_pages(document: bytes) -> Pages:
    """The functions for the pages of a document.

    Raises:
        ImageError: `missing`: it is of a format without pages.
    """
    reader = find_reader(document)
    if reader is None or reader.pages is None:
        raise ImageError(Status.MISSING, "it is no document with pages")
    return reader.pages


def unidentified(image_bytes: bytes) -> ImageError:
    """Explain why nobody could open the bytes: a format that is not read, a damaged image, or no image at all."""
    head = image_bytes[:1024]
    for magic, name in _NOT_READ.items():
        if head.startswith(magic) and (magic != b"FORM" or head[8:12] in (b"ILBM", b"PBM ", b"RGBN", b"ACBM", b"CIMG")):
            return unsupported(name)
    if (name_of_brands := brands.name_of_brands(head)) is not None:
        return _of_brands(name_of_brands, head)
    if head.startswith(_READ) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return corrupt("it starts like an image, but its header is damaged")
    if head.startswith(b"\0\0\2\0") and head[4:5] > b"\0":
        return unsupported("CUR")
    if head[40:44] == b" EMF":
        return unsupported("EMF")
    if head[128:132] == b"DICM":
        return unsupported("DICOM")
    if _PCX.match(head):
        return unsupported("PCX")
    if image_bytes.endswith(_TGA_END) or _is_tga(head):
        return unsupported("TGA")
    if _is_svg(image_bytes):
        return unsupported("SVG")
    return ImageError(Status.NOT_AN_IMAGE, f"starts with {head[:16]!r}")


def _of_brands(name: str, head: bytes) -> ImageError:
    if name == brands.AVIF:
        if features.check("avif"):
            return corrupt("a damaged AVIF file")
        return ImageError(Status.UNSUPPORTED, "AVIF is not read: this build of Pillow has no AVIF")
    if name == brands.OTHER:
        return ImageError(Status.NOT_AN_IMAGE, f"a video or sound file (MP4 brand {head[8:12]!r})")
    return unsupported(name)


def _is_tga(head: bytes) -> bool:
    """Tell by the header, which has no magic number: kind, size and depth must agree."""
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
        return False
    width, height = int.from_bytes(head[12:14], "little"), int.from_bytes(head[14:16], "little")
    has_palette = head[2] in (1, 9)
    depths = (8, 16) if head[2] in (1, 3, 9, 11) else (15, 16, 24, 32)
    return bool(width and height and head[1] == has_palette and head[16] in depths and head[17] & 0xC0 == 0)


def _is_svg(image_bytes: bytes) -> bool:
    """Tell whether the first element is `svg`, behind declarations and comments."""
    head = image_bytes[:_LOOKED_AT]
    text = head.decode(_UTF16.get(head[:2], "utf-8"), "ignore")
    place = 0
    while True:
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr] # it matches nothing, too
        end = next((mark for start, mark in _PASSED_OVER if text.startswith(start, place)), None)
        if end is None:
            return _SVG.match(text, place) is not None
        place = text.find(end, place) + len(end)
        if place < len(end):
            return False

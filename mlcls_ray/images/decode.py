"""Encoded bytes → RGB uint8, the way PaddleX sees an image (reference: OpenCV `imdecode` with `IMREAD_COLOR`).

Differences from PaddleX, on purpose: EXIF orientation is applied to WebP and TIFF too, GIF and AVIF are read, a truncated
file is an error instead of half an image, and what is refused says why.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError, features

from mlcls_ray.config import MAX_PIXELS
from mlcls_ray.errors import ImageError, Status

Image.init()
FORMATS = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "SUN", "AVIF") if name in Image.OPEN
)
"""Pillow's names of the formats we open (a phone's MPO comes through JPEG; AVIF is in most builds). The rest is not tried:
Pillow's EPS reader, for one, starts a program."""

SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".bmp",
        ".dib",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".sr",
        ".ras",
        ".avif",
    ]
)
"""The file name suffixes (lower case) by which a folder's images are found."""

MAX_PAGES = 10_000
"""Of a TIFF: its directories may lead round in a circle."""

# Pillow warns of large images (our own check comes before any pixel is decoded) and of damaged EXIF; a million images of a
# corpus would print it a thousand times.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Decoded(NamedTuple):
    """`image` is uint8 [h, w, 3], turned upright; `format` is the container's lower-case name.

    `width` and `height` are the file's, upright: larger than the image's where it was decoded at a fraction of its size.
    """

    image: np.ndarray
    format: str
    width: int
    height: int


def decode(image_bytes: bytes, max_pixels: int = MAX_PIXELS, enough: tuple[int, int] | None = None) -> Decoded:
    """Decode the first frame or page of an image to upright RGB.

    Grey is replicated, palettes are expanded, alpha is dropped (not composited), 16-bit samples keep their high byte,
    CMYK is converted without its profile: as PaddleX does.

    Args:
        enough: (width, height) that the caller can use. A JPEG may then come smaller than it is, by a factor of n/8, but at least so large.

    Raises:
        ImageError: `empty`, `not_an_image`, `unsupported`, `too_large` or `corrupt`.
    """
    return _decode_jpeg(image_bytes, max_pixels, enough) or next(decode_pages(image_bytes, max_pixels))


def _decode_jpeg(image_bytes: bytes, max_pixels: int, enough: tuple[int, int] | None) -> Decoded | None:
    """A JPEG in which nothing is odd, by libjpeg-turbo without Pillow's detours (the same pixels); None leaves it to Pillow."""
    if not image_bytes.startswith(b"\xff\xd8\xff"):
        return None
    try:
        with Image.open(io.BytesIO(image_bytes), formats=("JPEG",)) as opened:  # the header only
            if opened.mode not in ("RGB", "L") or opened.width * opened.height > max_pixels:
                return None
            width, height = opened.size
            orientation = _orientation(opened)
        is_turned = orientation in SIDES_SWAPPED
        wanted = (enough[::-1] if is_turned else enough) if enough else (0, 0)
        image = simplejpeg.decode_jpeg(image_bytes, "RGB", min_width=wanted[0], min_height=wanted[1], strict=True)
    except Exception:  # Pillow says what is wrong with it, or reads it all the same
        return None
    transpose = _TRANSPOSE.get(orientation)
    if transpose is not None:
        image = np.asarray(Image.fromarray(image).transpose(transpose))
    return Decoded(image, "jpeg", *((height, width) if is_turned else (width, height)))


def decode_pages(image_bytes: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Decoded]:
    """Each page of a TIFF, one at a time; the first frame of anything else. At least one is decoded, or it raises.

    Raises:
        ImageError: as `decode`.
    """
    if not image_bytes:
        raise ImageError(Status.EMPTY, "0 bytes")
    try:
        with Image.open(io.BytesIO(image_bytes), formats=FORMATS) as opened:
            for page in range(MAX_PAGES if opened.format == "TIFF" else 1):
                if page and not _seek(opened, page):
                    return
                width, height = opened.size
                if width * height > max_pixels:
                    raise ImageError(
                        Status.TOO_LARGE, f"{width}x{height} pixels; the limit is {max_pixels} (max_pixels)"
                    )
                container = "jpeg" if opened.format == "MPO" else str(opened.format).lower()
                image = np.asarray(_to_rgb(opened))
                yield Decoded(image, container, image.shape[1], image.shape[0])
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise _unidentified(image_bytes) from None
    except Image.DecompressionBombError as error:
        raise ImageError(Status.TOO_LARGE, str(error)) from None
    except MemoryError:
        raise ImageError(Status.TOO_LARGE, "not enough memory to decode it") from None
    except Exception as error:
        # Pillow's plugins raise whatever their parsing runs into (OSError, SyntaxError, struct.error, IndexError …).
        raise ImageError(Status.CORRUPT, f"{type(error).__name__}: {error}") from None


def _seek(opened: Image.Image, page: int) -> bool:
    try:
        opened.seek(page)
    except EOFError:
        return False
    return True


def to_rgb(image: Image.Image) -> np.ndarray:
    """An opened Pillow image as `decode` would see its file: uint8 [height, width, 3], upright."""
    return np.asarray(_to_rgb(image))


def _to_rgb(opened: Image.Image) -> Image.Image:
    opened.load()
    # After loading: Pillow turns TIFF itself (and drops the tag), and a PNG's EXIF may follow its pixels.
    orientation = _orientation(opened)
    image = _to_eight_bits(opened)
    if image.mode == "CMYK" and opened.format in ("JPEG", "MPO"):
        image = _from_cmyk(image, is_inverted="adobe" in opened.info)
    if image.mode != "RGB":
        image = image.convert("RGB")
    transpose = _TRANSPOSE.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _from_cmyk(image: Image.Image, is_inverted: bool) -> Image.Image:
    """OpenCV's conversion, to the level; Pillow's is up to two levels off.

    OpenCV sees ink as the file stores it. Adobe's programs store it inverted, which Pillow undoes (`is_inverted`).
    """
    stored = np.asarray(image).astype(np.uint16)
    if is_inverted:
        stored = 255 - stored
    key = stored[..., 3:]
    return Image.fromarray((key - ((255 - stored[..., :3]) * key >> 8)).astype(np.uint8))


def _orientation(opened: Image.Image) -> int:
    try:
        return int(opened.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        return 1  # damaged EXIF must not cost the image


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Wider samples to 8 bits by their high byte; Pillow's own conversion would clip them at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode == "I":
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    return image


_EXIF_ORIENTATION = 0x0112
SIDES_SWAPPED = (5, 6, 7, 8)
"""The EXIF orientations that turn by a quarter."""
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SUPPORTED_MAGIC = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\x59\xa6\x6a\x95",
)  # fmt: skip
_UNSUPPORTED_MAGIC = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\1\0": "ICO",
    b"v/1\x01": "OpenEXR",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
}
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def _unidentified(image_bytes: bytes) -> ImageError:
    """Why Pillow could not open it: a format we do not read, a damaged image, or no image at all."""
    head = image_bytes[:1024]
    for magic, name in _UNSUPPORTED_MAGIC.items():
        if head.startswith(magic):
            return ImageError(Status.UNSUPPORTED, f"{name} is not read")
    if head[4:8] == b"ftyp":
        if head[8:12] in _HEIF_BRANDS:
            return ImageError(Status.UNSUPPORTED, "HEIC/HEIF is not read")
        if head[8:12] in (b"avif", b"avis"):
            if features.check("avif"):
                return ImageError(Status.CORRUPT, "a damaged AVIF file")
            return ImageError(Status.UNSUPPORTED, "AVIF is not read: this build of Pillow has no AVIF")
    if b"<svg" in head.lower():
        return ImageError(Status.UNSUPPORTED, "SVG is not read")
    if head.startswith(_SUPPORTED_MAGIC) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return ImageError(Status.CORRUPT, "an image's first bytes, but the header is damaged")
    return ImageError(Status.NOT_AN_IMAGE, f"starts with {head[:16]!r}")

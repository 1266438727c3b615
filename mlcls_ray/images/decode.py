"""Decode image bytes to RGB uint8 as PaddleX does (the reference is OpenCV's `imdecode` with `IMREAD_COLOR`).

Intended differences from PaddleX: EXIF orientation is applied to WebP and TIFF too, GIF and AVIF are read, a truncated file is an
error instead of half an image, and an image that cannot be read gets an error that says why.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError, features

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images import MAX_PIXELS

Image.init()
FORMATS = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "SUN", "AVIF") if name in Image.OPEN
)
"""Pillow's names of the formats that we open (JPEG covers a phone's MPO; most builds have AVIF). No other format is tried: Pillow's
EPS reader, for one, starts a program."""

SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
        ".pbm", ".pnm", ".sr", ".ras", ".avif",
    )
)  # fmt: skip
"""The file name suffixes, in lower case, by which a folder's images are found."""

MAX_PAGES = 10_000
"""Pages read of one document: the directories of a damaged TIFF may form a circle."""

# Pillow warns of large images, which we check ourselves before any pixel is decoded, and of damaged EXIF. In a large corpus that
# would be thousands of lines.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Decoded(NamedTuple):
    """A decoded image: uint8 [H, W, 3], turned upright, and the lower-case name of its file format.

    `width` and `height` are those of the file, upright. They are larger than the image if it was decoded at a fraction of its size.
    """

    image: np.ndarray
    format: str
    width: int
    height: int


def decode(image_bytes: bytes, max_pixels: int = MAX_PIXELS, min_size: tuple[int, int] | None = None) -> Decoded:
    """Decode the first frame or page of an image to upright RGB.

    Grey is replicated, palettes are expanded, alpha is dropped (not composited), 16-bit samples keep their high byte,
    CMYK is converted without its profile: as PaddleX does.

    Args:
        min_size: (width, height) that is enough for the caller. A JPEG may then be decoded at n/8 of its size, but no smaller than this.

    Raises:
        ImageError: `empty`, `not_an_image`, `unsupported`, `too_large` or `corrupt`.
    """
    return _decode_jpeg(image_bytes, max_pixels, min_size) or next(decode_pages(image_bytes, max_pixels))


def _decode_jpeg(image_bytes: bytes, max_pixels: int, min_size: tuple[int, int] | None) -> Decoded | None:
    """Decode an ordinary JPEG by libjpeg-turbo, which gives Pillow's pixels in less time; None: leave this image to Pillow."""
    if not image_bytes.startswith(b"\xff\xd8\xff"):
        return None
    try:
        with Image.open(io.BytesIO(image_bytes), formats=("JPEG",)) as opened:  # the header only
            if opened.mode not in ("RGB", "L") or opened.width * opened.height > max_pixels:
                return None
            width, height = opened.size
            orientation = _orientation(opened)
        is_turned = orientation in SIDES_SWAPPED
        stored = (min_size[::-1] if is_turned else min_size) if min_size else (0, 0)
        image = simplejpeg.decode_jpeg(image_bytes, "RGB", min_width=stored[0], min_height=stored[1], strict=True)
    except Exception:  # Pillow reads it after all, or says what is wrong with it
        return None
    transpose = _TRANSPOSE.get(orientation)
    if transpose is not None:
        image = np.asarray(Image.fromarray(image).transpose(transpose))
    return Decoded(image, "jpeg", *((height, width) if is_turned else (width, height)))


def check_jpeg(image_bytes: bytes, max_pixels: int = MAX_PIXELS) -> Decoded | None:
    """Decode an ordinary JPEG at an eighth of its size, which reads all of its data. None: it is damaged, or no ordinary JPEG.

    For a caller whose own decoder may say nothing of damaged data: what this accepts, `decode` decodes without complaint.
    """
    return _decode_jpeg(image_bytes, max_pixels, (1, 1))


def decode_pages(image_bytes: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Decoded]:
    """Decode each page of a TIFF, one at a time, or the first frame of any other image. Yields at least one page, or raises.

    Raises:
        ImageError: `empty`, `not_an_image`, `unsupported`, `too_large` or `corrupt`.
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
        # Pillow's plugins let any exception of their parsers through: OSError, SyntaxError, struct.error, IndexError …
        raise ImageError(Status.CORRUPT, f"{type(error).__name__}: {error}") from None


def _seek(opened: Image.Image, page: int) -> bool:
    try:
        opened.seek(page)
    except EOFError:
        return False
    return True


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an open Pillow image to what `decode` makes of its file: uint8 [H, W, 3], upright."""
    return np.asarray(_to_rgb(image))


def _to_rgb(opened: Image.Image) -> Image.Image:
    opened.load()
    # Read after loading: Pillow turns a TIFF itself and drops the tag, and a PNG's EXIF may follow its pixels.
    orientation = _orientation(opened)
    image = _to_eight_bits(opened)
    if image.mode == "CMYK" and opened.format in ("JPEG", "MPO"):
        image = _from_cmyk(image, is_inverted="adobe" in opened.info)
    if image.mode != "RGB":
        image = image.convert("RGB")
    transpose = _TRANSPOSE.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _from_cmyk(image: Image.Image, is_inverted: bool) -> Image.Image:
    """Convert CMYK to RGB exactly as OpenCV does; Pillow's own conversion differs by up to two levels.

    OpenCV reads the ink as the file stores it. Adobe's programs store it inverted, and Pillow undoes that (`is_inverted`).
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
        return 1  # an image with damaged EXIF is still an image


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Keep the high byte of wider samples; Pillow's own conversion would clip them at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode == "I":
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    return image


_EXIF_ORIENTATION = 0x0112
SIDES_SWAPPED = (5, 6, 7, 8)
"""The EXIF orientations that turn an image by 90 degrees."""
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
    """Explain why Pillow could not open the bytes: a format that is not supported, a damaged image, or no image at all."""
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
        return ImageError(Status.CORRUPT, "it starts like an image, but its header is damaged")
    return ImageError(Status.NOT_AN_IMAGE, f"starts with {head[:16]!r}")

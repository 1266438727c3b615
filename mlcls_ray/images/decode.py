"""Decode image bytes to RGB uint8 as PaddleX does (the reference is OpenCV's `imdecode` with `IMREAD_COLOR`).

Where OpenCV reads a file, the pixels are OpenCV's. What nobody here reads right is `unsupported`, with its name, and an image with
pixels that are missing or unsure is `corrupt`; neither is ever a black or half picture. docs/label.md lists the intended differences.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images import MAX_PIXELS, jpeg, pnm
from mlcls_ray.images.decoded import Decoded, check_pixels
from mlcls_ray.images.formats import FORMATS, SUFFIXES, find_reader, unidentified
from mlcls_ray.images.orientation import SIDES_SWAPPED
from mlcls_ray.images.pillow import to_rgb

__all__ = [
    "FORMATS",
    "SIDES_SWAPPED",
    "SUFFIXES",
    "Decoded",
    "check_jpeg",
    "decode",
    "decode_pages",
    "to_rgb",
]

MAX_READS = 200_000
"""Reads in which Pillow may parse a header. A file of millions of tiny blocks would hold a worker for a minute."""
MAX_PIXEL_READS = 4_000_000
"""Reads in which Pillow may decode pixels; few of its decoders read in small pieces."""
_NOT_IMPLEMENTED = re.compile(r"unsupported|not (supported|implemented)|cannot (handle|read)", re.IGNORECASE)

# Pillow warns of large images, which we check ourselves before any pixel is decoded, and of damaged EXIF. In a large corpus that
# would be thousands of lines.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(
    image_bytes: bytes,
    max_pixels: int = MAX_PIXELS,
    min_size: tuple[int, int] | None = None,
    buffer: np.ndarray | None = None,
) -> Decoded:
    """Decode the first frame or page of an image to upright RGB.

    Grey is replicated, palettes are expanded, alpha is dropped (not composited), 16-bit samples keep their high byte,
    CMYK is converted without its profile: as PaddleX does.

    Args:
        min_size: (width, height) that is enough for the caller. A JPEG may then be decoded at n/8 of its size, but no smaller than this.
        buffer: memory that the image may lie in, uint8 [n], so that it is gone when the next one is decoded. Used where it is large enough.

    Raises:
        ImageError: `empty`, `not_an_image`, `unsupported`, `too_large` or `corrupt`.
    """
    return next(decode_pages(image_bytes, max_pixels, min_size, buffer))


def check_jpeg(image_bytes: bytes, max_pixels: int = MAX_PIXELS) -> Decoded | None:
    """Decode a JPEG at an eighth of its size, which reads all of its data. None: it is damaged, or no JPEG that is read.

    For a caller whose own decoder may say nothing of damaged data: what this accepts, `decode` accepts.
    """
    try:
        return jpeg.decode_jpeg(image_bytes, max_pixels, (1, 1)) if image_bytes.startswith(jpeg.MAGIC) else None
    except (ImageError, MemoryError):
        return None


def decode_pages(
    image_bytes: bytes,
    max_pixels: int = MAX_PIXELS,
    min_size: tuple[int, int] | None = None,
    buffer: np.ndarray | None = None,
) -> Iterator[Decoded]:
    """Decode each page of a TIFF or a PDF, one at a time, or the first frame of any other image. Yields at least one page, or raises.

    Raises:
        ImageError: `empty`, `not_an_image`, `unsupported`, `too_large` or `corrupt`.
    """
    try:
        if image_bytes.startswith(jpeg.MAGIC):
            yield jpeg.decode_jpeg(image_bytes, max_pixels, min_size, buffer)
        elif reader := find_reader(image_bytes):
            yield from reader.read(image_bytes, max_pixels)
        elif pnm.is_plain(image_bytes):
            yield _decode_other(pnm.to_binary(image_bytes, max_pixels), max_pixels)
        elif image_bytes:
            yield _decode_other(image_bytes, max_pixels)
        else:
            raise ImageError(Status.EMPTY, "0 bytes")
    except MemoryError:
        raise ImageError(Status.TOO_LARGE, "not enough memory to decode it") from None


def _decode_other(image_bytes: bytes, max_pixels: int) -> Decoded:
    """Decode one of `FORMATS` by Pillow."""
    try:
        stream = _BoundedReader(image_bytes)
        with Image.open(stream, formats=FORMATS) as opened:
            check_pixels(*opened.size, max_pixels)
            stream.reads_left = min(MAX_READS + 2 * opened.width * opened.height, MAX_PIXEL_READS)
            image = to_rgb(opened)
            return Decoded(image, str(opened.format).lower(), image.shape[1], image.shape[0])
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise unidentified(image_bytes) from None
    except Image.DecompressionBombError as error:
        raise ImageError(Status.TOO_LARGE, str(error)) from None
    except Exception as error:
        # Pillow's plugins let any exception of their parsers through: OSError, SyntaxError, struct.error, IndexError …
        status = Status.UNSUPPORTED if _NOT_IMPLEMENTED.search(str(error)) else Status.CORRUPT
        raise ImageError(status, f"{type(error).__name__}: {error}") from None


class _BoundedReader(io.BytesIO):
    """Bytes that may be read in so many pieces only: `reads_left`."""

    reads_left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise ImageError(Status.TOO_LARGE, "it consists of too many small pieces to be read in bounded time")
        return super().read(size)

"""Decode HEIC and HEIF by libheif (pillow-heif). Its HEVC decoder fills missing data with grey, so `heif_items` looks for them first."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images import brands
from mlcls_ray.images.decoded import Decoded, Reader, check_pixels, corrupt, import_extra, single, unsupported
from mlcls_ray.images.heif_items import check_items, is_sequence

EXTRA, PACKAGE = "heic", "pillow_heif"
_LIMIT = re.compile(r"security limit|memory", re.IGNORECASE)
_NOT_IMPLEMENTED = re.compile(r"unsupported|not (supported|implemented)|no decod", re.IGNORECASE)


def decode_heif(image_bytes: bytes, max_pixels: int) -> Decoded:
    """Decode the primary picture of a HEIC or HEIF file to upright RGB.

    libheif turns, mirrors and crops it as the file's own properties say. An EXIF orientation does not count, as the standard and browsers
    have it. Alpha is dropped, and samples of 10 and 12 bits keep their high byte.

    Raises:
        ImageError: `too_large`, `unsupported` or `corrupt`.
    """
    pillow_heif = _pillow_heif()
    if is_sequence(image_bytes):
        raise unsupported("a HEIF image sequence (a video)")
    check_items(image_bytes)
    try:
        opened = pillow_heif.open_heif(image_bytes, convert_hdr_to_8bit=True)
        primary = opened[opened.primary_index]
        width, height = primary.size
        check_pixels(width, height, max_pixels)
        image = np.asarray(primary)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # ValueError, RuntimeError, OSError, EOFError, SyntaxError …
        raise _explain(str(error)) from None
    if image.dtype != np.uint8:  # grey of more than 8 bits, scaled to 16
        image = (image >> 8).astype(np.uint8)
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else np.ascontiguousarray(image[..., :3])
    return Decoded(image, "heif", image.shape[1], image.shape[0])


def _explain(message: str) -> ImageError:
    message = " ".join(message.split())
    if _LIMIT.search(message):
        return ImageError(Status.TOO_LARGE, f"libheif: {message}")
    if _NOT_IMPLEMENTED.search(message):
        return ImageError(Status.UNSUPPORTED, f"libheif: {message}")
    return corrupt(f"libheif: {message}")


@lru_cache
def _pillow_heif() -> Any:
    """Load pillow-heif when the first such image comes, to decode in the caller's thread: a worker has one CPU.

    Raises:
        ImageError: `unsupported`: it is not installed.
    """
    pillow_heif = import_extra(PACKAGE, EXTRA, READER.name)
    pillow_heif.options.DECODE_THREADS = 1
    return pillow_heif


READER = Reader(
    brands.HEIF,
    lambda image_bytes: brands.name_of_brands(image_bytes) == brands.HEIF,
    single(decode_heif),
    (".heic", ".heif", ".hif"),
    EXTRA,
    PACKAGE,
)

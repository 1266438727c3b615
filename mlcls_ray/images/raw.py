"""Decode camera RAW by the preview that the camera stored in it (LibRaw, rawpy). Nothing is developed: labels need no more.

Most RAW files are TIFFs of a kind, and some have a tiny first page that any TIFF reader shows. So they are told before TIFF is tried.
"""

from __future__ import annotations

import io
from itertools import islice

import numpy as np

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images import brands
from mlcls_ray.images import tiff_tags as tags
from mlcls_ray.images.decoded import Decoded, Reader, check_pixels, corrupt, import_extra, single
from mlcls_ray.images.jpeg import MAGIC, decode_jpeg
from mlcls_ray.images.orientation import turn

EXTRA, PACKAGE = "raw", "rawpy"
_MAGICS = (
    b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR",
)  # fmt: skip
"""Fujifilm, Panasonic, Olympus, Sigma, Minolta, Canon's CRW."""
_CR2 = b"CR\x02"
_CR2_PLACE = 8
_MAX_PAGES = 8
"""Pages that are looked at."""
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)
"""The EXIF orientation for each `flip` of LibRaw: 1 mirrors, 2 turns upside down, 4 swaps the sides, in this order."""


def is_raw(image_bytes: bytes) -> bool:
    """Tell a camera RAW file, TIFF-like or not."""
    if image_bytes.startswith(_MAGICS) or brands.name_of_brands(image_bytes) == brands.RAW:
        return True
    if not image_bytes.startswith(tags.MAGICS):
        return False
    if image_bytes.startswith(_CR2, _CR2_PLACE):
        return True
    try:
        return any(
            tags.is_sensors(directory)
            for directory in islice(tags.read_directories(image_bytes, _MAX_PAGES), _MAX_PAGES)
        )
    except ImageError:
        return False  # a damaged TIFF, of which its decoder says more


def decode_raw(image_bytes: bytes, max_pixels: int) -> Decoded:
    """Decode the largest preview of a camera RAW file to upright RGB. Width and height are the preview's.

    Raises:
        ImageError: `unsupported`: it has no preview that is read; `too_large` or `corrupt`.
    """
    rawpy = import_extra(PACKAGE, EXTRA, READER.name)
    try:
        with rawpy.imread(io.BytesIO(image_bytes)) as opened:
            flip = _ORIENTATIONS[opened.sizes.flip & 7]
            preview = opened.extract_thumb().data
    except MemoryError:
        raise
    except (
        rawpy.LibRawNoThumbnailError,
        rawpy.LibRawUnsupportedThumbnailError,
        rawpy.LibRawFileUnsupportedError,
    ) as error:
        raise ImageError(Status.UNSUPPORTED, f"camera RAW without a preview that is read ({_text(error)})") from None
    except (rawpy.LibRawTooBigError, rawpy.LibRawUnsufficientMemoryError) as error:
        raise ImageError(Status.TOO_LARGE, f"LibRaw: {_text(error)}") from None
    except Exception as error:  # LibRawError, NotImplementedError …
        raise corrupt(f"LibRaw: {_text(error)}") from None
    if isinstance(preview, bytes):
        if not preview.startswith(MAGIC):
            raise ImageError(Status.UNSUPPORTED, "camera RAW whose preview is no JPEG")
        return decode_jpeg(preview, max_pixels)._replace(format="raw")  # LibRaw writes the orientation into it
    check_pixels(preview.shape[1], preview.shape[0], max_pixels)
    image = turn(np.array(preview[..., :3], np.uint8), flip)
    return Decoded(image, "raw", image.shape[1], image.shape[0])


def _text(error: Exception) -> str:
    message = error.args[0] if error.args else ""
    return message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message or type(error).__name__)


READER = Reader(
    brands.RAW,
    is_raw,
    single(decode_raw),
    (
        ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw", ".rwl", ".3fr",
        ".iiq", ".x3f", ".gpr", ".erf", ".mrw", ".mef", ".mos", ".kdc", ".dcr",
    ),
    EXTRA,
    PACKAGE,
)  # fmt: skip

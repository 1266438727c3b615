"""Decode JPEG by libjpeg-turbo: refuse what has pixels missing, and nothing else.

libjpeg only warns where data are missing, and it names its first warning only. So a JPEG that it warns about is decoded again
without everything that is harmless, until the first warning is one that tells.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import simplejpeg

from mlcls_ray.images import MAX_PIXELS
from mlcls_ray.images.decoded import Decoded, check_pixels, corrupt, unsupported
from mlcls_ray.images.jpeg_markers import (
    END,
    Header,
    check_scans,
    has_several_scans,
    read_header,
    without_bytes_before,
    without_ornaments,
)
from mlcls_ray.images.opencv import imdecode
from mlcls_ray.images.orientation import SIDES_SWAPPED, turn

MAGIC = b"\xff\xd8\xff"
EOI = b"\xff\xd9"
CMYK = 4
"""Number of components of CMYK, and of YCCK."""
MAX_REPAIRS = 16
MAX_READ_AHEAD = 16
"""Bytes behind the last pixel that libjpeg may have read before it finds the rest to be extraneous."""
MISSING_DATA = re.compile(r"premature end of (data segment|JPEG)|instead of RST|bad Huffman", re.IGNORECASE)
"""The messages of libjpeg where data are missing."""
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_NOT_IMPLEMENTED = re.compile(r"unsupported|not (supported|implemented)|subsampling|colorspace", re.IGNORECASE)
"""The messages for what TurboJPEG refuses, and OpenCV's libjpeg may read: subsampling such as 3x1."""


def decode_jpeg(
    image_bytes: bytes, max_pixels: int, min_size: tuple[int, int] | None = None, buffer: np.ndarray | None = None
) -> Decoded:
    """Decode a JPEG, or the first picture of a phone's MPO, to upright RGB.

    Args:
        min_size: (width, height) that is enough: it may be decoded at n/8 of its size, but no smaller than this.
        buffer: memory that may hold the pixels, uint8 [n].

    Raises:
        ImageError: `too_large`, `unsupported` or `corrupt`.
    """
    header = read_header(image_bytes)
    frame = header.frame
    check_pixels(frame.width, frame.height, max_pixels)
    if len(frame.components) not in (1, 3, CMYK):
        raise unsupported(f"a JPEG of {len(frame.components)} components")
    if has_several_scans(header):
        check_scans(image_bytes, header)
    is_turned = header.orientation in SIDES_SWAPPED
    min_width, min_height = (0, 0) if min_size is None else min_size[::-1] if is_turned else min_size
    if buffer is not None and not _fits(image_bytes, min_width, min_height, buffer):
        buffer = None
    image = _decode(
        image_bytes,
        header,
        partial(
            simplejpeg.decode_jpeg,
            colorspace="CMYK" if len(frame.components) == CMYK else "RGB",
            min_width=min_width,
            min_height=min_height,
            buffer=buffer,
        ),
    )
    if len(frame.components) == CMYK:
        image = from_cmyk(image)
    size = (frame.height, frame.width) if is_turned else (frame.width, frame.height)
    return Decoded(turn(image, header.orientation), "jpeg", *size)


def _fits(image_bytes: bytes, min_width: int, min_height: int, buffer: np.ndarray) -> bool:
    """Tell whether the pixels of a JPEG, scaled as the decoder will scale it, fit into a buffer; False if it cannot be told."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(image_bytes, min_height=min_height, min_width=min_width)
    except ValueError:
        return False
    return bool(CMYK * width * height <= buffer.size)


def _decode(image_bytes: bytes, header: Header, decode: Callable[..., np.ndarray]) -> np.ndarray:
    """Decode by libjpeg, and tell by its warnings whether pixels are missing."""
    try:
        return decode(image_bytes, strict=True)
    except ValueError:
        candidates = [without_ornaments(image_bytes, header)]
    first_message = ""
    for _ in range(max(2, min(MAX_REPAIRS, MAX_PIXELS // (header.frame.width * header.frame.height)))):
        if not candidates:
            break
        candidate = candidates.pop(0)
        try:
            return decode(candidate, strict=True)
        except ValueError as error:
            message = str(error)
        first_message = first_message or message
        junk = _EXTRANEOUS.search(message)
        if junk is not None:
            count, marker = int(junk[1]), int(junk[2], 16)
            if marker == END and _trailing_zeros(candidate) - count > MAX_READ_AHEAD:
                raise corrupt("its last bytes are zeros, and some of them stand for pixels")
            candidates.extend(without_bytes_before(candidate, count, marker))
    if not _NOT_IMPLEMENTED.search(first_message):
        raise corrupt(first_message)
    image = imdecode(without_ornaments(image_bytes, header)) if len(header.frame.components) != CMYK else None
    if image is None:
        raise unsupported(f"this kind of JPEG ({first_message})")
    return image


def _trailing_zeros(candidate: bytes) -> int:
    """Number of zero bytes before the end marker. A download that was broken off may have them in the place of pixels."""
    body = candidate[: -len(EOI)]
    return len(body) - len(body.rstrip(b"\0"))


def from_cmyk(ink: np.ndarray) -> np.ndarray:
    """Convert uint8 [H, W, 4], as a JPEG stores it, to RGB uint8 [H, W, 3] exactly as OpenCV does, with or without Adobe's marker."""
    wide = ink.astype(np.uint16)
    key = wide[..., 3:]
    return np.asarray((key - ((255 - wide[..., :3]) * key >> 8)).astype(np.uint8))

"""Decode BMP."""

from __future__ import annotations

import struct

from mlcls_ray.images.decoded import Decoded, Reader, check_pixels, corrupt, single, unsupported
from mlcls_ray.images.opencv import imdecode

MAGIC = b"BM"
_OS2_HEADER = 12
"""Size of OS/2's header, which has 16-bit sides."""
_COMPRESSIONS = {0: "none", 1: "RLE8", 2: "RLE4", 3: "bit fields", 4: "JPEG", 5: "PNG", 6: "bit fields with alpha"}


def is_bmp(image_bytes: bytes) -> bool:
    """Tell a BMP from text that starts with "BM": the size of its second header is one of a few."""
    return image_bytes.startswith(MAGIC) and image_bytes[14:18] in {
        struct.pack("<I", size) for size in (_OS2_HEADER, 16, 40, 52, 56, 64, 108, 124)
    }


def decode_bmp(image_bytes: bytes, max_pixels: int) -> Decoded:
    """Decode a BMP to RGB.

    Raises:
        ImageError: `too_large`, `unsupported` or `corrupt`.
    """
    if len(image_bytes) < 26:
        raise corrupt("a BMP that ends inside its header")
    (header,) = struct.unpack_from("<I", image_bytes, 14)
    compression = 0
    if header == _OS2_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", image_bytes, 18)
    else:
        if len(image_bytes) < 34:
            raise corrupt("a BMP that ends inside its header")
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", image_bytes, 18)
    height = abs(height)  # below zero: stored from top to bottom
    check_pixels(width, height, max_pixels)
    kind = f"a BMP of {bits} bits a pixel, compression {_COMPRESSIONS.get(compression, compression)},"
    if compression not in _COMPRESSIONS or compression in (4, 5) or bits not in (1, 4, 8, 16, 24, 32):
        raise unsupported(kind)
    (start,) = struct.unpack_from("<I", image_bytes, 10)
    if compression in (0, 3, 6) and len(image_bytes) - start < ((width * bits + 31) // 32 * 4) * height:
        raise corrupt("the BMP's pixels end early")
    image = imdecode(image_bytes)
    if image is None and compression in (1, 2):
        raise corrupt("the BMP's pixels are damaged or end early")
    if image is None:
        raise unsupported(kind)
    return Decoded(image, "bmp", width, height)


READER = Reader("BMP", is_bmp, single(decode_bmp), (".bmp", ".dib"))

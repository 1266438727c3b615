"""EXIF orientation: read it as OpenCV and browsers do, and turn an image upright.

Pillow's `getexif` also takes an orientation from XMP, which no viewer does, so it is not used here.
"""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

EXIF_HEADER = b"Exif\0"
"""Starts the EXIF block of a JPEG; one more byte follows."""
SIDES_SWAPPED = (5, 6, 7, 8)
"""The EXIF orientations that turn an image by 90 degrees."""
_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_orientation(exif: bytes) -> int:
    """Read the orientation, 1..8, of an EXIF block; 1 if it has none, or is damaged: such an image is still an image.

    As in OpenCV, the first entry counts, and its first two bytes are the value whatever its type says.
    """
    if exif.startswith(EXIF_HEADER):
        exif = exif[len(EXIF_HEADER) + 1 :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            if struct.unpack_from(order + "H", exif, place)[0] == _TAG:
                value = struct.unpack_from(order + "H", exif, place + 8)[0]
                return int(value) if value in _TRANSPOSE else 1
    except struct.error:
        pass
    return 1


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn uint8 [H, W, 3] upright."""
    transpose = _TRANSPOSE.get(orientation)
    return image if transpose is None else np.asarray(Image.fromarray(image).transpose(transpose))

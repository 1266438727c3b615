"""Convert what Pillow has opened to pixels as OpenCV has them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mlcls_ray.images import jpeg
from mlcls_ray.images.decoded import unsupported
from mlcls_ray.images.orientation import read_orientation, turn


def to_rgb(opened: Image.Image) -> np.ndarray:
    """Convert an open Pillow image to what `decode` makes of its file: uint8 [H, W, 3], upright.

    Raises:
        ImageError: `unsupported`: its samples are floats, or integers of 32 bits, whose range nobody knows.
    """
    opened.load()
    # Read after loading: Pillow turns a TIFF itself and drops the tag, and a PNG's EXIF may follow its pixels.
    exif = _exif_block(opened)
    if opened.mode == "F" or (opened.mode == "I" and opened.format not in ("PNG", "PPM")):
        raise unsupported(f"a picture of {'floats' if opened.mode == 'F' else '32-bit integers'}")
    if opened.mode == "CMYK" and opened.format in ("JPEG", "MPO"):
        image = jpeg.from_cmyk(255 - np.asarray(opened))  # Pillow inverts every CMYK JPEG
    else:
        image = np.asarray(_to_eight_bits(opened).convert("RGB"))
    return turn(image, read_orientation(exif))


def _exif_block(opened: Image.Image) -> bytes:
    """The EXIF block of the image's file, or of an image that was made in memory; Pillow's own reader would also look into XMP."""
    if opened.format is None:
        return opened.getexif().tobytes()
    block = opened.info.get("exif", b"") if opened.format != "TIFF" else b""
    return block if isinstance(block, bytes) else b""


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Keep the high byte of wider samples; Pillow's own conversion would clip them at 255."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    return image

"""A decoded image, and the limits that hold for each format."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlcls_ray.errors import ImageError, Status


class Decoded(NamedTuple):
    """A decoded image: uint8 [H, W, 3], turned upright, and the lower-case name of its file format.

    `width` and `height` are those of the file, upright. They are larger than the image if it was decoded at a fraction of its size.
    """

    image: np.ndarray
    format: str
    width: int
    height: int


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse a header that promises more than `max_pixels`.

    Raises:
        ImageError: `too_large`; `corrupt`: a side of 0.
    """
    if width < 1 or height < 1:
        raise corrupt(f"{width}x{height} pixels")
    if width * height > max_pixels:
        raise ImageError(Status.TOO_LARGE, f"{width}x{height} pixels; the limit is {max_pixels} (max_pixels)")


def corrupt(message: str) -> ImageError:
    """The error of an image with pixels that are missing or unsure."""
    return ImageError(Status.CORRUPT, message)


def unsupported(name: str) -> ImageError:
    """The error of an image that is whole, and that nothing here reads."""
    return ImageError(Status.UNSUPPORTED, f"{name} is not read")

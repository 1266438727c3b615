"""Resize and crop images as the backend that a model was trained with does it: Pillow or OpenCV."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib import import_module
from typing import Literal

import numpy as np
from PIL import Image

log = logging.getLogger("mlcls_ray.images")
Backend = Literal["pil", "cv2"]

PIL_FILTERS = {
    "NEAREST": Image.Resampling.NEAREST,
    "BILINEAR": Image.Resampling.BILINEAR,
    "BICUBIC": Image.Resampling.BICUBIC,
    "BOX": Image.Resampling.BOX,
    "LANCZOS4": Image.Resampling.LANCZOS,
}
COMPILED_FILTERS = ("BILINEAR", "BICUBIC")
"""The filters of Pillow that `images.resample` has."""
CV2_FILTERS = {"NEAREST": 0, "LINEAR": 1, "BICUBIC": 2, "AREA": 3, "LANCZOS4": 4}
"""OpenCV's `INTER_*` numbers by PaddleX's names. LINEAR does not average when it shrinks an image, Pillow's BILINEAR does."""


def resize(image: np.ndarray, size: tuple[int, int], backend: Backend, interpolation: str) -> np.ndarray:
    """Resize uint8 [H, W, 3] to `size`, (width, height); an image of that size comes back itself.

    Args:
        interpolation: a key of `PIL_FILTERS` or `CV2_FILTERS`.
    """
    if size == image.shape[1::-1]:
        return image
    if backend == "pil":
        # One call for each axis, width first: Pillow 12.2 and later would begin with the height of some images, and round otherwise.
        narrow = Image.fromarray(image).resize((size[0], image.shape[0]), PIL_FILTERS[interpolation])
        return np.asarray(narrow.resize(size, PIL_FILTERS[interpolation]))
    import cv2  # loaded here, so that only models of this backend pay for it

    return np.asarray(cv2.resize(image, size, interpolation=CV2_FILTERS[interpolation]))


def resize_compiled(image: np.ndarray, size: tuple[int, int], interpolation: str, out: np.ndarray) -> np.ndarray:
    """Resize uint8 [H, W, 3] to `size`, (width, height), as `resize` does by Pillow, and write its centre into `out`, uint8 [h, w, 3].

    Args:
        interpolation: one of `COMPILED_FILTERS`. `can_compile` must have said yes.
    """
    from mlcls_ray.images.resample import resample

    return resample(image, size, crop_start(size, out.shape[1::-1]), interpolation == "BICUBIC", out)


@lru_cache
def can_compile() -> bool:
    """Load the compiled resize. False where that cannot be: Pillow gives the same pixels, so this is no error."""
    try:
        import_module("mlcls_ray.images.resample")
    except Exception as error:  # Numba is missing or broken, or finds no folder to keep what it compiled
        log.warning(
            "Pillow resizes, which takes longer: %s (NUMBA_CACHE_DIR names a folder that can be written)", error
        )
        return False
    return True


def center_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut `size`, (width, height), out of the centre of [H, W, 3]; the result is a view."""
    left, top = crop_start(image.shape[1::-1], size)
    return image[top : top + size[1], left : left + size[0]]


def crop_start(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
    """Return the (left, top) of a crop at the centre of an image; all are (width, height)."""
    return max(0, (size[0] - crop[0]) // 2), max(0, (size[1] - crop[1]) // 2)

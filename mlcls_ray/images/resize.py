"""Resize and crop images as the backend that a model was trained with does it: Pillow or OpenCV."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

Backend = Literal["pil", "cv2"]

PIL_FILTERS = {
    "NEAREST": Image.Resampling.NEAREST,
    "BILINEAR": Image.Resampling.BILINEAR,
    "BICUBIC": Image.Resampling.BICUBIC,
    "BOX": Image.Resampling.BOX,
    "LANCZOS4": Image.Resampling.LANCZOS,
}
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
        return np.asarray(Image.fromarray(image).resize(size, PIL_FILTERS[interpolation]))
    import cv2  # loaded here, so that only models of this backend pay for it

    return np.asarray(cv2.resize(image, size, interpolation=CV2_FILTERS[interpolation]))


def center_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut `size`, (width, height), out of the centre of [H, W, 3]; the result is a view."""
    height, width = image.shape[:2]
    left, top = max(0, (width - size[0]) // 2), max(0, (height - size[1]) // 2)
    return image[top : top + size[1], left : left + size[0]]

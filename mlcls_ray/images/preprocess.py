"""RGB image → the model's input pixels, by the resize and crop of its `inference.yml` (PaddleX 3.7 semantics)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from mlcls_ray.errors import ImageError, Status

Triple = tuple[float, float, float]
Side = Annotated[int, PositiveInt]

PIL_FILTERS = {
    "NEAREST": Image.Resampling.NEAREST,
    "BILINEAR": Image.Resampling.BILINEAR,
    "BICUBIC": Image.Resampling.BICUBIC,
    "BOX": Image.Resampling.BOX,
    "LANCZOS4": Image.Resampling.LANCZOS,
}
CV2_FILTERS = {"NEAREST": 0, "LINEAR": 1, "BICUBIC": 2, "AREA": 3, "LANCZOS4": 4}
"""OpenCV's `INTER_*` numbers by PaddleX's names; its LINEAR does not smooth when it shrinks, Pillow's BILINEAR does."""


class Preprocess(BaseModel):
    """What happens between an RGB image and the network: resize, centre crop, `pixels * scale`, minus mean, over std.

    `size` is (width, height); exactly one of `size` and `resize_short` is set; `crop` is (width, height). Without a crop
    `resize_short` would give each image another shape, so it needs one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[PositiveInt, PositiveInt] | None = None
    resize_short: PositiveInt | None = None
    crop: tuple[PositiveInt, PositiveInt] | None = None
    backend: Literal["pil", "cv2"] = "cv2"
    interpolation: str = "LINEAR"
    scale: float = 1 / 255
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _consistent(self) -> Preprocess:
        if (self.size is None) == (self.resize_short is None):
            raise ValueError("ResizeImage needs exactly one of size and resize_short")
        if self.resize_short is not None and self.crop is None:
            raise ValueError("ResizeImage.resize_short needs a CropImage: images of one batch must have one shape")
        if self.crop is not None:
            width, height = self.size or (self.resize_short, self.resize_short)
            if self.crop[0] > (width or 0) or self.crop[1] > (height or 0):
                raise ValueError(f"CropImage.size {self.crop} is larger than the resized image")
        names = PIL_FILTERS if self.backend == "pil" else CV2_FILTERS
        if self.interpolation not in names:
            raise ValueError(
                f"interpolation '{self.interpolation}' does not exist for backend '{self.backend}'; it has {', '.join(names)}"
            )
        if any(value == 0 for value in self.std):
            raise ValueError(f"NormalizeImage.std {self.std} holds a zero")
        return self

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the pixels that reach the network."""
        chosen = self.crop or self.size
        assert chosen is not None  # the validator saw to it
        return chosen

    @property
    def geometry(self) -> tuple[object, ...]:
        """What decides the pixels; the rest decides what the network makes of them."""
        return self.size, self.resize_short, self.crop, self.backend, self.interpolation

    @property
    def enough(self) -> tuple[int, int] | None:
        """(width, height) from which on more of an image changes nothing that matters: twice what it is resized to, since Pillow's
        filters average when they shrink. None where the resize depends on the image's own sides, or does not average.
        """
        if self.size is None or self.backend != "pil":
            return None
        return SCALED_DECODE * self.size[0], SCALED_DECODE * self.size[1]

    def to_pixels(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] → uint8 [height, width, 3] of `input_size`.

        Raises:
            ImageError: `too_large` when the side ratio makes the short-side resize explode.
        """
        height, width = image.shape[:2]
        if self.size is not None:
            target = self.size
        else:
            assert self.resize_short is not None
            ratio = self.resize_short / min(width, height)
            target = (round(width * ratio), round(height * ratio))
            if max(target) > MAX_RESIZED_SIDE:
                raise ImageError(Status.TOO_LARGE, f"{width}x{height} would be resized to {target[0]}x{target[1]}")
        pixels = image if target == (width, height) else _resize(image, target, self.backend, self.interpolation)
        return pixels if self.crop is None else _center_crop(pixels, self.crop)


MAX_RESIZED_SIDE = 32_768
SCALED_DECODE = 2


def _resize(image: np.ndarray, size: tuple[int, int], backend: str, interpolation: str) -> np.ndarray:
    if backend == "pil":
        return np.asarray(Image.fromarray(image).resize(size, PIL_FILTERS[interpolation]))
    import cv2  # only models of the cv2 backend pay for loading it

    return np.asarray(cv2.resize(image, size, interpolation=CV2_FILTERS[interpolation]))


def _center_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = image.shape[:2]
    left, top = max(0, (width - size[0]) // 2), max(0, (height - size[1]) // 2)
    return image[top : top + size[1], left : left + size[0]]


def to_tensor(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """As `normalize`, into an array of its own."""
    count, height, width, _ = pixels.shape
    return normalize(pixels, preprocess, np.empty((count, 3, height, width), np.float32))


def normalize(pixels: np.ndarray, preprocess: Preprocess, out: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] → float32 [N, 3, H, W] in `out`: one multiply and one add per channel, as PaddleX does."""
    for channel in range(3):
        alpha = np.float32(preprocess.scale / preprocess.std[channel])
        beta = np.float32(-preprocess.mean[channel] / preprocess.std[channel])
        np.multiply(pixels[..., channel], alpha, out=out[:, channel], dtype=np.float32)
        out[:, channel] += beta
    return out

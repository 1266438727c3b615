"""The preprocessing that a model's `inference.yml` describes (PaddleX 3.7 semantics): image → pixels → tensor."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.resize import (
    COMPILED_FILTERS,
    CV2_FILTERS,
    PIL_FILTERS,
    Backend,
    center_crop,
    resize,
    resize_compiled,
)

Triple = tuple[float, float, float]
MAX_RESIZED_SIDE = 32_768
DECODE_MARGIN = 2
"""An image is decoded at no less than this many times the size that it is resized to."""


class Preprocess(BaseModel):
    """Resize an RGB image, crop its centre, and normalize it: `(pixels * scale - mean) / std`.

    `size` and `crop` are (width, height). Exactly one of `size` and `resize_short` is set. `resize_short` gives each image
    another shape, so it needs a crop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[PositiveInt, PositiveInt] | None = None
    resize_short: PositiveInt | None = None
    crop: tuple[PositiveInt, PositiveInt] | None = None
    backend: Backend = "cv2"
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
        """The (width, height) of the pixels that reach the network."""
        size = self.crop or self.size
        assert size is not None  # ensured by the validator
        return size

    @property
    def pixels_shape(self) -> tuple[int, int, int]:
        """The shape (height, width, 3) of those pixels."""
        width, height = self.input_size
        return height, width, 3

    @property
    def geometry(self) -> tuple[object, ...]:
        """The fields that decide the pixels. The other fields decide the tensor made of them."""
        return self.size, self.resize_short, self.crop, self.backend, self.interpolation

    @property
    def min_decode_size(self) -> tuple[int, int] | None:
        """The smallest (width, height) to decode an image at without changing the scores: twice the size that it is resized to,
        because Pillow's filters average when they shrink. None: decode it whole, because the resize depends on the image's own
        sides, or does not average.
        """
        if self.size is None or self.backend != "pil":
            return None
        return DECODE_MARGIN * self.size[0], DECODE_MARGIN * self.size[1]

    def to_pixels(self, image: np.ndarray, compiled: bool = False, out: np.ndarray | None = None) -> np.ndarray:
        """Resize and crop an image, uint8 [H, W, 3], to pixels, uint8 [height, width, 3] of `input_size`.

        Args:
            compiled: resize by `images.resample` where it knows the filter: the same bytes, sooner. `can_compile` must have said yes.
            out: the array to write the pixels into and return, C-contiguous.

        Raises:
            ImageError: `too_large`: the image is so narrow that resizing its short side makes the long side huge.
        """
        height, width = image.shape[:2]
        size = self.resized_size(width, height)
        if compiled and self.backend == "pil" and self.interpolation in COMPILED_FILTERS and size != (width, height):
            out = np.empty(self.pixels_shape, np.uint8) if out is None else out
            return resize_compiled(image, size, self.interpolation, out)
        pixels = resize(image, size, self.backend, self.interpolation)
        pixels = pixels if self.crop is None else center_crop(pixels, self.crop)
        if out is None:
            return pixels
        out[:] = pixels
        return out

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) that an image of this size is resized to, before the crop.

        Raises:
            ImageError: `too_large`, as `to_pixels`.
        """
        if self.size is not None:
            return self.size
        assert self.resize_short is not None  # ensured by the validator
        ratio = self.resize_short / min(width, height)
        size = round(width * ratio), round(height * ratio)
        if max(size) > MAX_RESIZED_SIDE:
            raise ImageError(Status.TOO_LARGE, f"{width}x{height} would be resized to {size[0]}x{size[1]}")
        return size


def to_tensor(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Normalize uint8 [N, H, W, 3] to a new array, float32 [N, 3, H, W]."""
    count, height, width, _ = pixels.shape
    return normalize(pixels, preprocess, np.empty((count, 3, height, width), np.float32))


def normalize(pixels: np.ndarray, preprocess: Preprocess, out: np.ndarray) -> np.ndarray:
    """Normalize uint8 [N, H, W, 3] into `out`, float32 [N, 3, H, W]: one multiply and one add per channel, as PaddleX does."""
    for channel in range(3):
        alpha = np.float32(preprocess.scale / preprocess.std[channel])
        beta = np.float32(-preprocess.mean[channel] / preprocess.std[channel])
        np.multiply(pixels[..., channel], alpha, out=out[:, channel], dtype=np.float32)
        out[:, channel] += beta
    return out

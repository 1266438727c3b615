"""Training images: crop, mirror, RandAugment (Cubuk et al., arXiv 1909.13719) and cutout. The same generator makes the same image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mlcls_ray.train.sized_job import SizedAugment

GREY = (128, 128, 128)
Operation = Callable[[Image.Image, float], Image.Image]


class AugmentedImage(NamedTuple):
    """Pixels uint8 [height, width, 3], and whether they were mirrored."""

    pixels: np.ndarray
    is_mirrored: bool


def augment_image(
    image: np.ndarray, size: tuple[int, int], options: SizedAugment, random: np.random.Generator
) -> AugmentedImage:
    """Crop, resize and augment an image uint8 [H, W, 3] to pixels uint8 [height, width, 3] of `size` (width, height)."""
    cropped = _random_crop(image, options.min_crop_area, random)
    picture = Image.fromarray(cropped).resize(size, Image.Resampling.BILINEAR)
    is_mirrored = bool(random.random() < 0.5)
    if is_mirrored:
        picture = ImageOps.mirror(picture)
    for number in random.integers(len(OPERATIONS), size=options.randaugment_n):
        strength = options.randaugment_m / 10 * (1 if random.random() < 0.5 else -1)
        picture = OPERATIONS[number](picture, strength)
    pixels = np.array(picture)
    if options.cutout:
        _cut_out(pixels, options.cutout, random)
    return AugmentedImage(pixels, is_mirrored)


def _random_crop(image: np.ndarray, min_area: float, random: np.random.Generator) -> np.ndarray:
    """Crop to a random part with at least this share of the area and a slightly different aspect ratio."""
    if min_area >= 1:
        return image
    height, width = image.shape[:2]
    height_share, width_share = random_crop_sides(min_area, random)
    crop_height = min(height, max(1, round(height * height_share)))
    crop_width = min(width, max(1, round(width * width_share)))
    top, left = random.integers(height - crop_height + 1), random.integers(width - crop_width + 1)
    return image[top : top + crop_height, left : left + crop_width]


def random_crop_sides(min_area: float, random: np.random.Generator) -> tuple[float, float]:
    """Draw the two sides of a crop as shares of the whole's sides. A share may be slightly above 1; callers limit it."""
    area, stretch = random.uniform(min_area, 1.0), np.exp(random.uniform(-0.2, 0.2))
    return float(np.sqrt(area) * stretch), float(np.sqrt(area) / stretch)


def _cut_out(pixels: np.ndarray, share: float, random: np.random.Generator) -> None:
    """Paint a grey square, in place; a part of it may lie outside."""
    height, width = pixels.shape[:2]
    half_height, half_width = int(height * share) // 2, int(width * share) // 2
    y, x = random.integers(height), random.integers(width)
    pixels[max(0, y - half_height) : y + half_height, max(0, x - half_width) : x + half_width] = GREY


def _affine(picture: Image.Image, a: float, b: float, c: float, d: float) -> Image.Image:
    width, height = picture.size
    matrix = (1.0, a, b * width, c, 1.0, d * height)
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)


OPERATIONS: tuple[Operation, ...] = (
    lambda picture, strength: picture,
    lambda picture, strength: ImageOps.autocontrast(picture),
    lambda picture, strength: ImageOps.equalize(picture),
    lambda picture, strength: picture.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=GREY),
    lambda picture, strength: ImageOps.posterize(picture, 8 - round(4 * abs(strength))),
    lambda picture, strength: ImageOps.solarize(picture, 256 - round(200 * abs(strength))),
    lambda picture, strength: ImageEnhance.Color(picture).enhance(1 + 0.9 * strength),
    lambda picture, strength: ImageEnhance.Contrast(picture).enhance(1 + 0.9 * strength),
    lambda picture, strength: ImageEnhance.Brightness(picture).enhance(1 + 0.9 * strength),
    lambda picture, strength: ImageEnhance.Sharpness(picture).enhance(1 + 0.9 * strength),
    lambda picture, strength: _affine(picture, 0.3 * strength, 0, 0, 0),
    lambda picture, strength: _affine(picture, 0, 0, 0.3 * strength, 0),
    lambda picture, strength: _affine(picture, 0, 0.3 * strength, 0, 0),
    lambda picture, strength: _affine(picture, 0, 0, 0, 0.3 * strength),
)
"""RandAugment's operations; their strength is between -1 and 1."""

"""Training images: crop, mirror, RandAugment (Cubuk et al., arXiv 1909.13719) and cutout. The same generator makes the same image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mlcls_ray.train.config import Augment

GREY = (128, 128, 128)
Operation = Callable[[Image.Image, float], Image.Image]


class Augmented(NamedTuple):
    """uint8 [height, width, 3], and whether left and right have changed places."""

    pixels: np.ndarray
    is_mirrored: bool


def augment_image(image: np.ndarray, size: tuple[int, int], told: Augment, random: np.random.Generator) -> Augmented:
    """uint8 [H, W, 3] → uint8 [height, width, 3] of `size` (width, height)."""
    picture = Image.fromarray(_crop(image, told.crop, random)).resize(size, Image.Resampling.BILINEAR)
    is_mirrored = bool(random.random() < 0.5)
    if is_mirrored:
        picture = ImageOps.mirror(picture)
    for number in random.integers(len(OPERATIONS), size=told.operations):
        strength = told.magnitude / 10 * (1 if random.random() < 0.5 else -1)
        picture = OPERATIONS[number](picture, strength)
    pixels = np.array(picture)
    if told.cutout:
        _cut_out(pixels, told.cutout, random)
    return Augmented(pixels, is_mirrored)


def _crop(image: np.ndarray, least: float, random: np.random.Generator) -> np.ndarray:
    """A part of at least so much of the area, its sides a little stretched."""
    if least >= 1:
        return image
    height, width = image.shape[:2]
    first, second = draw_sides(least, random)
    part_height = min(height, max(1, round(height * first)))
    part_width = min(width, max(1, round(width * second)))
    top, left = random.integers(height - part_height + 1), random.integers(width - part_width + 1)
    return image[top : top + part_height, left : left + part_width]


def draw_sides(least: float, random: np.random.Generator) -> tuple[float, float]:
    """Of a random part of at least so much of the area: its two sides in shares of the whole's, one a little longer; some above 1."""
    area, stretch = random.uniform(least, 1.0), np.exp(random.uniform(-0.2, 0.2))
    return float(np.sqrt(area) * stretch), float(np.sqrt(area) / stretch)


def _cut_out(pixels: np.ndarray, share: float, random: np.random.Generator) -> None:
    """Paint a square over, in place; it may lie half outside."""
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
"""RandAugment's operations; a strength is -1 to 1."""

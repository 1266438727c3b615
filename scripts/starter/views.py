"""The images that the fine-tuning sees: each photograph of the pool, whole and in parts, with other colours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from mlcls_ray.images.decode import decode
from mlcls_ray.train.augment import random_crop_sides

SIZE = 320
"""Side of a view in pixels, the `input_size` in `scripts/starter/finetune.yaml`."""
CROPS, WHOLE = 3, 1
"""Number of views of each photograph: crops, and the whole."""
WHOLE_BOX = np.array([0.0, 0.0, 1.0, 1.0])
MIN_CROP_AREA = 0.25
COLOUR_RANGE = 0.3
"""Largest change of brightness, contrast and saturation."""


class View(NamedTuple):
    """A file, the row of its photograph in the pool, and the part that it shows: a box [4], x0 y0 x1 y1 in shares of the sides."""

    path: Path
    row: int
    box: np.ndarray


def write_views(paths: list[Path], folder: Path) -> list[View]:
    """Write the views of all photographs as JPEG files. The same photographs give the same files."""
    folder.mkdir(parents=True, exist_ok=True)

    def views_of(row: int) -> list[View]:
        image = Image.fromarray(decode(paths[row].read_bytes()).image)
        views = []
        for number in range(WHOLE + CROPS):
            random = np.random.default_rng((0, row, number))
            box = WHOLE_BOX if number < WHOLE else _random_box(random)
            left, top, right, bottom = (box * np.tile(image.size, 2)).tolist()
            picture = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, right, bottom))
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                picture = enhance(picture).enhance(random.uniform(1 - COLOUR_RANGE, 1 + COLOUR_RANGE))
            views.append(View(folder / f"{paths[row].stem}-{number}.jpg", row, box))
            picture.save(views[-1].path, quality=92)
        return views

    with ThreadPoolExecutor(2) as threads:
        return [view for views in threads.map(views_of, range(len(paths))) for view in views]


def _random_box(random: np.random.Generator) -> np.ndarray:
    sides = np.minimum(1, random_crop_sides(MIN_CROP_AREA, random))
    low = random.uniform(0, 1, 2) * (1 - sides)
    return np.concatenate([low, low + sides])

"""CSV: one row per image."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlcls_ray.table.export.base import LabeledImage


def write_csv(images: Iterable[LabeledImage], classes: Sequence[str], target: Path) -> int:
    """Write the columns `uri`, `labels` and `scores`; returns the number of images.

    Several labels or scores are separated by `;`, which no class name that we know contains.
    """
    count = 0
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("uri", "labels", "scores"))
        for image in images:
            count += 1
            writer.writerow((image.uri, ";".join(image.labels), ";".join(f"{score:.5f}" for score in image.scores)))
    return count

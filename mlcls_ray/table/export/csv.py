"""CSV: one row per image."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlcls_ray.table.export.base import LabeledImage

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that starts with one of these for a formula, which can run programs and send data away."""


def write_csv(images: Iterable[LabeledImage], classes: Sequence[str], target: Path) -> int:
    """Write the columns `uri`, `labels` and `scores`; returns the number of images.

    Several labels or scores are separated by `;`, which no class name that we know contains. Text that a spreadsheet would take for a
    formula gets an apostrophe in front; `without_guard` takes it away again.
    """
    count = 0
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("uri", "labels", "scores"))
        for image in images:
            count += 1
            writer.writerow(
                (
                    guard(image.uri),
                    guard(";".join(image.labels)),
                    ";".join("" if score is None else f"{score:.5f}" for score in image.scores),
                )
            )
    return count


def guard(text: str) -> str:
    """Keep a spreadsheet from running a cell: an apostrophe in front makes it text."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def without_guard(text: str) -> str:
    """Undo `guard`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text

"""Scores to chips: the labels of an image with their names, ready to be drawn, printed or sent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mlcls_ray.images.draw import Chip
from mlcls_ray.labels.select import select

SCORE_DIGITS = 5
"""Scores are rounded after the threshold was applied, as in PaddleX."""


def select_chips(
    scores: np.ndarray, thresholds: np.ndarray, names: Sequence[str | None], groups: np.ndarray | None = None
) -> list[list[Chip] | None]:
    """Select the labels of each image, best first; None for an image with a score that is not finite.

    Args:
        scores: float32 [N, C], after the sigmoid.
        thresholds: float32 [C].
        names: the label of each class.
        groups: those of a label map; see `select`.
    """
    selection = select(scores, thresholds, groups)
    is_finite = np.isfinite(scores).all(axis=1)
    chips: list[list[Chip] | None] = []
    for number, (start, end) in enumerate(pairwise(selection.offsets)):
        pairs = zip(selection.class_ids[start:end], selection.scores[start:end], strict=True)
        labels = [Chip(int(index), str(names[index]), round(float(score), SCORE_DIGITS)) for index, score in pairs]
        chips.append(labels if is_finite[number] else None)
    return chips

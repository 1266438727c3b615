"""Scores → labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Selection(NamedTuple):
    """The labels of one image, best first: class ids int16 [k], scores float32 [k]."""

    class_ids: np.ndarray
    scores: np.ndarray


def select(scores: np.ndarray, thresholds: np.ndarray) -> Selection:
    """Classes whose score is above their own threshold, by descending score, ties by class id.

    Args:
        scores: float32 [C], after the sigmoid.
        thresholds: float32 [C]. PaddleX pairs such a list with the images of a batch instead of the classes.
    """
    class_ids = np.flatnonzero(scores > thresholds)
    order = np.argsort(-scores[class_ids], kind="stable")
    chosen = class_ids[order].astype(np.int16)
    return Selection(chosen, scores[chosen])


def keep_top(scores: np.ndarray, count: int) -> np.ndarray:
    """Scores [N, C] with everything below each row's `count` best replaced by NaN (a new array)."""
    if count >= scores.shape[1]:
        return scores.copy()
    kept = np.full_like(scores, np.nan)
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    np.put_along_axis(kept, best, np.take_along_axis(scores, best, axis=1), axis=1)
    return kept

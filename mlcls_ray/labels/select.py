"""Scores → labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Selection(NamedTuple):
    """The labels of N images, best first in each.

    Those of image n are `class_ids` (int16) and `scores` (float32) from `offsets[n]` to `offsets[n + 1]` (int32 [N + 1]).
    """

    offsets: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray


def select(scores: np.ndarray, thresholds: np.ndarray) -> Selection:
    """Classes whose score is above their own threshold, by descending score, ties by class id.

    Args:
        scores: float32 [N, C], after the sigmoid.
        thresholds: float32 [C]. PaddleX pairs such a list with the images of a batch instead of the classes.
    """
    class_num = scores.shape[1]
    places = np.flatnonzero(scores > thresholds)
    chosen = scores.ravel()[places]
    images = places // class_num
    # One 64-bit key, image first: what is above a threshold is positive, and the bits of positive floats sort as they do.
    descending = ~chosen.astype(np.float32).view(np.uint32)
    order = np.argsort(images.astype(np.uint64) << np.uint64(32) | descending, kind="stable")
    offsets = np.zeros(len(scores) + 1, np.int32)
    np.cumsum(np.bincount(images, minlength=len(scores)), out=offsets[1:])
    return Selection(offsets, (places % class_num).astype(np.int16)[order], chosen[order])


def keep_top(scores: np.ndarray, count: int) -> np.ndarray:
    """Scores [N, C] with everything below each row's `count` best replaced by NaN (a new array)."""
    if count >= scores.shape[1]:
        return scores.copy()
    kept = np.full_like(scores, np.nan)
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    np.put_along_axis(kept, best, np.take_along_axis(scores, best, axis=1), axis=1)
    return kept

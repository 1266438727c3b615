"""Select labels: scores → the classes that are above their thresholds. No other module compares scores with thresholds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Selection(NamedTuple):
    """The labels of N images, each image's in descending order of score.

    Those of image n are `class_ids` (int16) and `scores` (float32) from `offsets[n]` to `offsets[n + 1]`; `offsets` is int32 [N + 1].
    """

    offsets: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray


def above_threshold(scores: np.ndarray, thresholds: np.ndarray | float) -> np.ndarray:
    """Decide which scores are labels: bool [N, C]. A score that equals its threshold is not a label, as in PaddleX.

    Args:
        scores: float32 [N, C], after the sigmoid. NaN is not above any threshold.
        thresholds: float32 [C], or one number for all classes.
    """
    return scores > thresholds


def clip_to_unlabeled(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Lower scores to the highest value that is not a label: `above_threshold` is False for all that it returns. Change both together.

    For scores that were no label, and were rounded up over their threshold since.
    """
    clipped: np.ndarray = np.minimum(scores, thresholds)
    return clipped


def select(scores: np.ndarray, thresholds: np.ndarray) -> Selection:
    """Select the classes above their thresholds, in descending order of score, equal scores in order of class id.

    Args:
        scores: float32 [N, C], after the sigmoid.
        thresholds: float32 [C], one per class. (PaddleX pairs such a list with the images of a batch, which is wrong.)
    """
    class_num = scores.shape[1]
    positions = np.flatnonzero(above_threshold(scores, thresholds))
    selected = scores.ravel()[positions]
    images = positions // class_num
    # Sort by one 64-bit key, the image in its high half. Scores are not negative, and the bits of such floats sort as the floats do.
    descending = ~selected.astype(np.float32).view(np.uint32)
    order = np.argsort(images.astype(np.uint64) << np.uint64(32) | descending, kind="stable")
    offsets = np.zeros(len(scores) + 1, np.int32)
    np.cumsum(np.bincount(images, minlength=len(scores)), out=offsets[1:])
    return Selection(offsets, (positions % class_num).astype(np.int16)[order], selected[order])


def keep_top(scores: np.ndarray, count: int) -> np.ndarray:
    """Copy scores [N, C] and replace all but the `count` best of each image by NaN."""
    if count >= scores.shape[1]:
        return scores.copy()
    kept = np.full_like(scores, np.nan)
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    np.put_along_axis(kept, best, np.take_along_axis(scores, best, axis=1), axis=1)
    return kept

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


def select(scores: np.ndarray, thresholds: np.ndarray, groups: np.ndarray | None = None) -> Selection:
    """Select the classes above their thresholds, in descending order of score, equal scores in order of class id.

    Args:
        scores: float32 [N, C], after the sigmoid.
        thresholds: float32 [C], one per class. (PaddleX pairs such a list with the images of a batch, which is wrong.)
        groups: int32 [C], the label of each class by a label map, -1 for none: each label comes once, with its best class. None: no map.
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
    selection = Selection(offsets, (positions % class_num).astype(np.int16)[order], selected[order])
    return selection if groups is None else _merge(selection, groups)


def _merge(selection: Selection, groups: np.ndarray) -> Selection:
    """Keep the first class of each label of an image: the labels stay in descending order of score."""
    count = len(selection.offsets) - 1
    images = np.repeat(np.arange(count), np.diff(selection.offsets))
    labels = groups[selection.class_ids]
    _, first = np.unique(images * (groups.max() + 2) + labels, return_index=True)
    kept = np.sort(first[labels[first] >= 0])
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(np.bincount(images[kept], minlength=count), out=offsets[1:])
    return Selection(offsets, selection.class_ids[kept], selection.scores[kept])


def round_beside(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Round to float16, each score to the nearest number on its own side of its threshold: `above_threshold` stays the same.

    For scores of which nobody will know which ones were labels: a label map merges some, and drops others. NaN stays.

    Args:
        scores: float32 [N, C] in 0..1.
        thresholds: float32 [C].

    Returns:
        float32 [N, C].
    """
    rounded = scores.astype(np.float16)
    is_above = above_threshold(rounded.astype(np.float32), thresholds)
    was_above = above_threshold(scores, thresholds)
    below, above = was_above & ~is_above, is_above & ~was_above
    rounded[below] = np.nextafter(rounded[below], np.float16(2))
    rounded[above] = np.nextafter(rounded[above], np.float16(-1))
    return rounded.astype(np.float32)


def keep_top(scores: np.ndarray, count: int) -> np.ndarray:
    """Copy scores [N, C] and replace all but the `count` best of each image by NaN."""
    if count >= scores.shape[1]:
        return scores.copy()
    kept = np.full_like(scores, np.nan)
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    np.put_along_axis(kept, best, np.take_along_axis(scores, best, axis=1), axis=1)
    return kept

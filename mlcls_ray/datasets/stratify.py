"""Splitting a multi-label data set so that each part has its share of each class.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, 2011): the rarest class first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def split_rows(targets: np.ndarray, shares: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    """The row numbers of each part, int64 and sorted.

    Args:
        targets: bool [N, C].
        shares: of each part; they sum to 1.
        seed: decides where a row could go either way.
    """
    random = np.random.RandomState(seed)
    count = len(targets)
    part_of = np.full(count, -1)
    wanted_rows = np.array(shares, float) * count
    wanted = np.outer(shares, targets.sum(axis=0)).astype(float)
    while (left := part_of < 0).any():
        open_counts = targets[left].sum(axis=0)
        if not open_counts.any():
            for row in random.permutation(np.flatnonzero(left)):  # rows without a label, or whose labels are all dealt
                part = _neediest(wanted_rows, wanted_rows, random)
                part_of[row] = part
                wanted_rows[part] -= 1
            break
        rarest = int(np.argmin(np.where(open_counts > 0, open_counts, count + 1)))
        for row in random.permutation(np.flatnonzero(left & targets[:, rarest])):
            part = _neediest(wanted[:, rarest], wanted_rows, random)
            part_of[row] = part
            wanted[part] -= targets[row]
            wanted_rows[part] -= 1
    return [np.flatnonzero(part_of == part) for part in range(len(shares))]


def _neediest(wanted: np.ndarray, wanted_rows: np.ndarray, random: np.random.RandomState) -> int:
    """The part that wants most of a class; of several, the one that wants most rows; of several, by lot."""
    best = np.flatnonzero(wanted == wanted.max())
    best = best[wanted_rows[best] == wanted_rows[best].max()]
    return int(random.choice(best))

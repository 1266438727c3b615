"""Split a multi-label data set so that each part has its share of each class.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, 2011): the rarest class first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def split_rows(targets: np.ndarray, shares: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    """Return the row numbers of each part, int64 and sorted.

    Args:
        targets: bool [N, C].
        shares: of each part; their sum is 1.
        seed: decides ties.
    """
    random = np.random.RandomState(seed)
    count = len(targets)
    part_of = np.full(count, -1)
    missing_rows = np.array(shares, float) * count
    """Rows that each part still needs."""
    missing = np.outer(shares, targets.sum(axis=0)).astype(float)
    """Positives of each class that each part still needs, [parts, C]."""
    while (unassigned := part_of < 0).any():
        positives = targets[unassigned].sum(axis=0)
        if not positives.any():  # the rows that are left have no label of a class that is left
            for row in random.permutation(np.flatnonzero(unassigned)):
                part = _neediest(missing_rows, missing_rows, random)
                part_of[row] = part
                missing_rows[part] -= 1
            break
        rarest = int(np.argmin(np.where(positives > 0, positives, count + 1)))
        for row in random.permutation(np.flatnonzero(unassigned & targets[:, rarest])):
            part = _neediest(missing[:, rarest], missing_rows, random)
            part_of[row] = part
            missing[part] -= targets[row]
            missing_rows[part] -= 1
    return [np.flatnonzero(part_of == part) for part in range(len(shares))]


def _neediest(missing: np.ndarray, missing_rows: np.ndarray, random: np.random.RandomState) -> int:
    """Return the part that needs most of a class; ties are decided by the rows that are needed, then at random."""
    best = np.flatnonzero(missing == missing.max())
    best = best[missing_rows[best] == missing_rows[best].max()]
    return int(random.choice(best))

"""How good scores are."""

from __future__ import annotations

import numpy as np


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Σ precision · Δrecall over the samples by descending score, ties counted as one step (scikit-learn's definition).

    Args:
        scores: float [N].
        targets: bool or 0/1 [N], with at least one positive.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.asarray(targets, dtype=bool)[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    true_positives = np.cumsum(hits)[last_of_tie]
    precision = true_positives / (last_of_tie + 1)
    recall = true_positives / hits.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def per_class_average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64 [C] from scores and targets [N, C]; NaN where a class has no positive."""
    return np.array(
        [
            average_precision(scores[:, class_id], targets[:, class_id]) if targets[:, class_id].any() else np.nan
            for class_id in range(targets.shape[1])
        ]
    )


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the classes that have a positive, in 0..1."""
    return float(np.nanmean(per_class_average_precision(scores, targets)))


def micro_f1(predicted: np.ndarray, targets: np.ndarray) -> float:
    """F1 over all decisions of bool [N, C] together (OF1)."""
    hits = float(np.logical_and(predicted, targets).sum())
    total = float(predicted.sum() + targets.sum())
    return 2 * hits / total if total else 0.0

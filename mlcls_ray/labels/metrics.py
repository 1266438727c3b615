"""Metrics of scores and labels against the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Average precision: Σ precision · Δrecall over descending scores; equal scores are one step (scikit-learn's definition).

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
    """Average precision of each class, float64 [C], from scores and targets [N, C]; NaN if a class has no positive."""
    return np.array(
        [
            average_precision(scores[:, class_id], targets[:, class_id]) if targets[:, class_id].any() else np.nan
            for class_id in range(targets.shape[1])
        ]
    )


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean of the average precisions of the classes that have a positive, in 0..1."""
    return float(np.nanmean(per_class_average_precision(scores, targets)))


def micro_f1(predicted: np.ndarray, targets: np.ndarray) -> float:
    """F1 over all decisions of bool [N, C] together, the "overall F1" (OF1)."""
    hits = float(np.logical_and(predicted, targets).sum())
    total = float(predicted.sum() + targets.sum())
    return 2 * hits / total if total else 0.0


class Agreement(NamedTuple):
    """Precision, recall and F1 of labels against the truth, 0..1.

    `class_precision` and `class_recall` are means over the classes that have a true image; `class_f1` is the F1 of these means (CF1
    in the literature). The `overall_` numbers are over all decisions together (OF1).
    """

    class_precision: float
    class_recall: float
    class_f1: float
    overall_precision: float
    overall_recall: float
    overall_f1: float


def agreement(predicted: np.ndarray, targets: np.ndarray) -> Agreement:
    """Compare predictions with the truth, both bool [N, C]."""
    hits = np.logical_and(predicted, targets).sum(axis=0).astype(np.float64)
    assigned, true = predicted.sum(axis=0), targets.sum(axis=0)
    has_true = true > 0
    precision = np.divide(hits, assigned, out=np.zeros_like(hits), where=assigned > 0)[has_true]
    recall = np.divide(hits, true, out=np.zeros_like(hits), where=has_true)[has_true]
    mean = (float(precision.mean()), float(recall.mean())) if has_true.any() else (0.0, 0.0)
    overall = (hits.sum() / max(assigned.sum(), 1), hits.sum() / max(true.sum(), 1))
    return Agreement(*mean, _f1(*mean), float(overall[0]), float(overall[1]), _f1(float(overall[0]), float(overall[1])))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def calibration_error(scores: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over all decisions: how far the mean score is from the share of true labels, over equally wide bins.

    Args:
        scores: float [N, C] in 0..1.
        targets: bool [N, C].
    """
    flat, true = scores.ravel().astype(np.float64), targets.ravel().astype(np.float64)
    bin_ids = np.minimum((flat * bins).astype(int), bins - 1)
    counts = np.bincount(bin_ids, minlength=bins)
    differences = np.abs(np.bincount(bin_ids, flat, bins) - np.bincount(bin_ids, true, bins))
    return float(differences.sum() / counts.sum())

"""How good scores are."""

from __future__ import annotations

from typing import NamedTuple

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


class Agreement(NamedTuple):
    """Precision, recall and F1 of labels against the truth, 0..1.

    `class_…`: the mean over the classes that have a true image, and the F1 of these two means (CF1, as the field reports it).
    `overall_…`: over all decisions together (OF1).
    """

    class_precision: float
    class_recall: float
    class_f1: float
    overall_precision: float
    overall_recall: float
    overall_f1: float


def agreement(predicted: np.ndarray, targets: np.ndarray) -> Agreement:
    """Of bool [N, C] predictions and truth."""
    hits = np.logical_and(predicted, targets).sum(axis=0).astype(np.float64)
    given, true = predicted.sum(axis=0), targets.sum(axis=0)
    used = true > 0
    precision = np.divide(hits, given, out=np.zeros_like(hits), where=given > 0)[used]
    recall = np.divide(hits, true, out=np.zeros_like(hits), where=used)[used]
    mean = (float(precision.mean()), float(recall.mean())) if used.any() else (0.0, 0.0)
    overall = (hits.sum() / max(given.sum(), 1), hits.sum() / max(true.sum(), 1))
    return Agreement(*mean, _f1(*mean), float(overall[0]), float(overall[1]), _f1(float(overall[0]), float(overall[1])))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def calibration_error(scores: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over all decisions: the mean distance between score and share of true ones, by equally wide bins.

    Args:
        scores: float [N, C] in 0..1.
        targets: bool [N, C].
    """
    flat, true = scores.ravel().astype(np.float64), targets.ravel().astype(np.float64)
    places = np.minimum((flat * bins).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    differences = np.abs(np.bincount(places, flat, bins) - np.bincount(places, true, bins))
    return float(differences.sum() / counts.sum())

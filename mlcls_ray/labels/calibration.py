"""Thresholds for a purpose: per class, from scores and true labels."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import numpy as np

from mlcls_ray.errors import UsageError

FEWEST_POSITIVES = 5
"""A class with fewer true images gets the threshold of all classes together: its own would be chance."""


class Target(NamedTuple):
    """What thresholds are to reach: the best F1, or at least so much precision (then the best recall), or recall (the best precision)."""

    kind: Literal["f1", "precision", "recall"]
    least: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == "f1" else f"{self.kind}={self.least:g}"


def parse_target(text: str) -> Target:
    """`f1`, `precision=0.9`, `recall=0.8`.

    Raises:
        UsageError: anything else.
    """
    if text == "f1":
        return Target("f1")
    match = re.fullmatch(r"(precision|recall)=(0?\.\d+|1(?:\.0*)?|0)", text)
    if match is None:
        raise UsageError(f"--target: '{text}' is none of f1, precision=P and recall=R with a number from 0 to 1")
    return Target("precision" if match[1] == "precision" else "recall", float(match[2]))


def choose_thresholds(scores: np.ndarray, targets: np.ndarray, target: Target) -> np.ndarray:
    """float32 [C]; a label is kept where its score is above.

    Args:
        scores: float32 [N, C] in 0..1.
        targets: bool [N, C].
    """
    together = best_threshold(scores.ravel(), targets.ravel(), target)
    return np.array(
        [
            best_threshold(scores[:, one], targets[:, one], target)
            if targets[:, one].sum() >= FEWEST_POSITIVES
            else together
            for one in range(scores.shape[1])
        ],
        np.float32,
    )


def best_threshold(scores: np.ndarray, targets: np.ndarray, target: Target) -> float:
    """The threshold for one class, halfway between two scores; what cannot be reached comes as near as it can.

    Args:
        scores: float [N].
        targets: bool [N].
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    hits = np.cumsum(targets[order])
    kept = np.arange(1, len(ranked) + 1)
    is_last = np.append(np.diff(ranked) != 0, True)  # images of one score are kept or dropped together
    ranked, hits, kept = ranked[is_last], hits[is_last], kept[is_last]
    precision, recall = hits / kept, hits / max(int(targets.sum()), 1)
    if target.kind == "f1":
        quality = 2 * hits / (kept + max(int(targets.sum()), 1))
    else:
        limited, wished = (precision, recall) if target.kind == "precision" else (recall, precision)
        reached = limited >= target.least
        quality = np.where(reached, 1 + wished, limited) if reached.any() else limited
    best = int(np.argmax(quality))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)

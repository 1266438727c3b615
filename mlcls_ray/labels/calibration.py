"""Choose thresholds that reach a target, per class, from scores and true labels."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import numpy as np

from mlcls_ray.errors import UsageError

MIN_POSITIVES = 5
"""A class with fewer true images gets the threshold of all classes together, because its own would be chance."""


class Target(NamedTuple):
    """The aim of thresholds: the best F1; or the best recall at a precision of at least `minimum`; or the reverse."""

    kind: Literal["f1", "precision", "recall"]
    minimum: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == "f1" else f"{self.kind}={self.minimum:g}"


def parse_target(text: str) -> Target:
    """Parse `f1`, `precision=0.9` or `recall=0.8`.

    Raises:
        UsageError: the text is none of these.
    """
    if text == "f1":
        return Target("f1")
    match = re.fullmatch(r"(precision|recall)=(0?\.\d+|1(?:\.0*)?|0)", text)
    if match is None:
        raise UsageError(f"--target: '{text}' is none of f1, precision=P and recall=R with a number from 0 to 1")
    return Target("precision" if match[1] == "precision" else "recall", float(match[2]))


def choose_thresholds(scores: np.ndarray, targets: np.ndarray, target: Target) -> np.ndarray:
    """Choose one threshold per class, float32 [C]. Rare classes get the one of all classes together.

    Args:
        scores: float32 [N, C] in 0..1.
        targets: bool [N, C].
    """
    common = best_threshold(scores.ravel(), targets.ravel(), target)
    return np.array(
        [
            common if is_rare else best_threshold(scores[:, class_id], targets[:, class_id], target)
            for class_id, is_rare in enumerate(rare_classes(targets))
        ],
        np.float32,
    )


def rare_classes(targets: np.ndarray) -> np.ndarray:
    """Tell which classes have fewer than `MIN_POSITIVES` true images: bool [C]. `targets`: bool [N, C]."""
    return np.asarray(targets.sum(axis=0) < MIN_POSITIVES)


def best_threshold(scores: np.ndarray, targets: np.ndarray, target: Target) -> float:
    """Choose the threshold of one class, halfway between two scores. A target out of reach gets the threshold that comes closest.

    Args:
        scores: float [N].
        targets: bool [N].
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    hits = np.cumsum(targets[order])
    kept = np.arange(1, len(ranked) + 1)
    is_last = np.append(np.diff(ranked) != 0, True)  # images with equal scores are kept or dropped together
    ranked, hits, kept = ranked[is_last], hits[is_last], kept[is_last]
    precision, recall = hits / kept, hits / max(int(targets.sum()), 1)
    if target.kind == "f1":
        quality = 2 * hits / (kept + max(int(targets.sum()), 1))
    else:
        bounded, maximized = (precision, recall) if target.kind == "precision" else (recall, precision)
        reached = bounded >= target.minimum
        quality = np.where(reached, 1 + maximized, bounded) if reached.any() else bounded
    best = int(np.argmax(quality))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)

"""Linear heads on frozen features: ridge regression of a teacher's logits, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from mlcls_ray.labels.metrics import micro_f1

CANDIDATES = np.arange(0.05, 0.96, 0.01)
"""Thresholds that are tried."""
SHRINKAGE = 20.0
"""Images of a class at which its own threshold counts half."""


class LinearHead(NamedTuple):
    """Logits = features [N, F] @ weight [F, C] + bias [C]."""

    weight: np.ndarray
    bias: np.ndarray


class Moments(NamedTuple):
    """All that ridge regression has to know of features and targets; those of two sets are added."""

    rows: int
    features: np.ndarray
    targets: np.ndarray
    squares: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray) -> Moments:
        """Of features float32 [N, F] and targets float32 [N, C]."""
        sums = (features.sum(axis=0), targets.sum(axis=0), features.T @ features, features.T @ targets)
        return cls(len(features), *(one.astype(np.float64) for one in sums))

    def plus(self, other: Moments | None) -> Moments:
        if other is None:
            return self
        return Moments(
            self.rows + other.rows,
            self.features + other.features,
            self.targets + other.targets,
            self.squares + other.squares,
            self.products + other.products,
        )

    def ridge(self, l2: float) -> LinearHead:
        """The head with the least mean squared distance from the targets plus `l2`·‖W‖² of the weights of standardised features."""
        mean, aim = self.features / self.rows, self.targets / self.rows
        covariance = self.squares / self.rows - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
        deviation = deviation + 0.01 * deviation.mean() + 1e-3  # a feature that hardly ever fires is not blown up
        scaled = covariance / np.outer(deviation, deviation)
        scaled[np.diag_indices_from(scaled)] += l2
        found = np.linalg.solve(scaled, (self.products / self.rows - np.outer(mean, aim)) / deviation[:, None])
        weight = found / deviation[:, None]
        return LinearHead(weight.astype(np.float32), (aim - mean @ weight).astype(np.float32))


class Scale(NamedTuple):
    """Platt scaling: one slope for all classes, one offset [C] for each. Ranks within a class, and so the average precision, stay."""

    slope: float
    offset: np.ndarray

    def logits(self, logits: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (self.slope * logits + self.offset).astype(np.float32)
        return scaled


def calibrate(held_out_logits: np.ndarray, targets: np.ndarray, ridge: float = 0.01) -> Scale:
    """The scale with the least cross-entropy; offsets are shrunk by `ridge`.

    Strong penalties make timid scores, and a training pool with another class balance biased ones.

    Args:
        held_out_logits: float [N, C] of images that the fit behind them had not seen.
        targets: float [N, C] in 0..1.
    """

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        slope, offset = flat[0], flat[1:]
        logits = slope * held_out_logits + offset
        error = (sigmoid(logits) - targets) / len(targets)
        loss = float((np.logaddexp(0, logits) - targets * logits).sum() / len(targets) + ridge * (offset**2).sum())
        return loss, np.concatenate([[(error * held_out_logits).sum()], error.sum(axis=0) + 2 * ridge * offset])

    start = np.concatenate([[1.0], np.zeros(targets.shape[1])])
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B").x
    return Scale(float(found[0]), found[1:].astype(np.float32))


def best_threshold(scores: np.ndarray, targets: np.ndarray) -> float:
    """The one threshold (a multiple of 0.01) that gives the best micro-F1 of scores [N, C] against targets [N, C]."""
    values = [micro_f1(scores > candidate, targets > 0.5) for candidate in CANDIDATES]
    return round(float(CANDIDATES[int(np.argmax(values))]), 2)


def thresholds_by_class(scores: np.ndarray, targets: np.ndarray, together: float) -> np.ndarray:
    """float32 [C]: for each class the threshold with the best F1, drawn towards `together` where the class has few images.

    Args:
        scores: float32 [N, C] in 0..1.
        targets: 0/1 [N, C].
        together: the threshold of all classes together.
    """
    images = targets.sum(axis=0)
    values = []
    for candidate in CANDIDATES:
        kept = scores > candidate
        values.append(2 * (targets * kept).sum(axis=0) / (kept.sum(axis=0) + images + 1e-9))
    own = CANDIDATES[np.argmax(values, axis=0)]
    return ((images * own + SHRINKAGE * together) / (images + SHRINKAGE)).astype(np.float32)


def as_logits(scores: np.ndarray, margin: float = 1e-5) -> np.ndarray:
    """float32; scores nearer to 0 or 1 than `margin` count as so near."""
    inside = np.clip(scores, margin, 1 - margin)
    logits: np.ndarray = np.log(inside / (1 - inside)).astype(np.float32)
    return logits


def sigmoid(logits: np.ndarray) -> np.ndarray:
    # exp of a large negative number is 0, of a large positive one overflows; half by half neither happens.
    return np.where(
        logits >= 0, 1 / (1 + np.exp(-np.abs(logits))), np.exp(-np.abs(logits)) / (1 + np.exp(-np.abs(logits)))
    )

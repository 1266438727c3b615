"""Linear heads on frozen features: ridge regression of a teacher's logits, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from mlcls_ray.models.heads import TAIL_END

CANDIDATES = np.arange(0.05, 0.505, 0.01)
"""Thresholds that are tried."""
MOST_STEPS = 1000


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
    """Platt scaling: one slope for all classes, one offset [C] for each, and a tail that makes what is unlikely still less likely. Ranks
    within a class, and so the average precision, stay.
    """

    slope: float
    offset: np.ndarray
    tail: float = 0.0

    def logits(self, logits: np.ndarray) -> np.ndarray:
        scaled = self.slope * logits + self.offset
        told: np.ndarray = (scaled - self.tail * np.exp(np.minimum(-scaled, TAIL_END))).astype(np.float32)
        return told


def calibrate(held_out_logits: np.ndarray, targets: np.ndarray, ridge: float = 0.01, has_tail: bool = False) -> Scale:
    """The scale with the least cross-entropy; offsets are shrunk by `ridge`.

    Strong penalties make timid scores, and a training pool with another class balance biased ones. Who learnt logits with a margin never
    goes far below it: that is what the tail is for.

    Args:
        held_out_logits: float [N, C] of images that the fit behind them had not seen.
        targets: float [N, C] in 0..1.
    """

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        slope, tail, offset = flat[0], flat[1], flat[2:]
        scaled = slope * held_out_logits + offset
        rest = np.exp(np.minimum(-scaled, TAIL_END))
        logits = scaled - tail * rest
        error = (sigmoid(logits) - targets) / len(targets)
        loss = float((np.logaddexp(0, logits) - targets * logits).sum() / len(targets) + ridge * (offset**2).sum())
        inner = error * (1 + tail * rest * (-scaled < TAIL_END))
        gradient = [(inner * held_out_logits).sum()], [-(error * rest).sum()], inner.sum(axis=0) + 2 * ridge * offset
        return loss, np.concatenate(gradient)

    start = np.concatenate([[1.0, 0.0], np.zeros(targets.shape[1])])
    bounds = [(None, None), (0.0, None if has_tail else 0.0), *[(None, None)] * targets.shape[1]]
    found = minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MOST_STEPS}
    ).x
    return Scale(float(found[0]), found[2:].astype(np.float32), float(found[1]))


def expected_threshold(scores: np.ndarray) -> float:
    """The one of CANDIDATES with the best F1 that is to be expected where calibrated scores, float [N], come true.

    No label is looked at: most classes have too few true images for a threshold of their own to be more than chance. The best one is half
    of the best F1 (Lipton et al., "Optimal Thresholding of Classifiers to Maximize F1 Measure", arXiv 1402.1892): none is above 0.5.
    """
    values = []
    for candidate in CANDIDATES:
        kept = scores > candidate
        values.append(2 * (scores * kept).sum() / (kept.sum() + scores.sum() + 1e-9))
    return float(CANDIDATES[int(np.argmax(values))])


def thresholds_by_class(scores: np.ndarray) -> np.ndarray:
    """float [C] for calibrated scores [N, C]: halfway between the best for the class's F1 and the best for that of all decisions."""
    own = np.array([expected_threshold(one) for one in scores.T])
    halfway: np.ndarray = (own + expected_threshold(scores.ravel())) / 2
    return halfway


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

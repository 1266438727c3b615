"""Linear heads on frozen features: ridge regression of a teacher's logits in closed form, calibration, and thresholds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from mlcls_ray.models.heads import TAIL_END

CANDIDATE_THRESHOLDS = np.arange(0.05, 0.505, 0.01)
MAX_ITERATIONS = 1000


class LinearHead(NamedTuple):
    """Logits = features [N, F] @ weight [F, C] + bias [C]."""

    weight: np.ndarray
    bias: np.ndarray


class Moments(NamedTuple):
    """The sums over features and targets that ridge regression needs; the sums of two data sets can be added."""

    rows: int
    features: np.ndarray
    targets: np.ndarray
    squares: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray) -> Moments:
        """Sum up features float32 [N, F] and targets float32 [N, C]."""
        sums = (features.sum(axis=0), targets.sum(axis=0), features.T @ features, features.T @ targets)
        return cls(len(features), *(total.astype(np.float64) for total in sums))

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
        """Find the head with the least mean squared error plus `l2`·‖W‖² of the weights of standardised features."""
        mean, target_mean = self.features / self.rows, self.targets / self.rows
        covariance = self.squares / self.rows - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
        deviation = deviation + 0.01 * deviation.mean() + 1e-3  # keeps features small that are almost always 0
        scaled = covariance / np.outer(deviation, deviation)
        scaled[np.diag_indices_from(scaled)] += l2
        cross = (self.products / self.rows - np.outer(mean, target_mean)) / deviation[:, None]
        weight = np.linalg.solve(scaled, cross) / deviation[:, None]
        return LinearHead(weight.astype(np.float32), (target_mean - mean @ weight).astype(np.float32))


class Scale(NamedTuple):
    """Platt scaling with one slope for all classes, an offset [C] for each, and a tail that lowers low scores further.

    The ranks within a class stay, and with them its average precision.
    """

    slope: float
    offset: np.ndarray
    tail: float = 0.0

    def logits(self, logits: np.ndarray) -> np.ndarray:
        scaled = self.slope * logits + self.offset
        calibrated: np.ndarray = (scaled - self.tail * _tail(scaled)).astype(np.float32)
        return calibrated


def _tail(logits: np.ndarray) -> np.ndarray:
    """Compute the tail of `MultiLabelClassifier`, in numpy."""
    tail: np.ndarray = np.exp(np.minimum(-logits, TAIL_END))
    return tail


def calibrate(held_out_logits: np.ndarray, targets: np.ndarray, ridge: float = 0.01, has_tail: bool = False) -> Scale:
    """Find the scale with the least cross-entropy; offsets are shrunk by `ridge`.

    Strong L2 makes scores under-confident, and a different class balance biases them. Because training logits were clipped, the model never
    predicts far below that clip; the tail corrects this.

    Args:
        held_out_logits: float [N, C] of images that the model was not fitted on.
        targets: float [N, C] in 0..1.
        ridge: weight of the squared offsets.
        has_tail: fit a tail too; else it is 0.
    """

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        slope, tail, offset = flat[0], flat[1], flat[2:]
        scaled = slope * held_out_logits + offset
        exponential = _tail(scaled)
        logits = scaled - tail * exponential
        error = (sigmoid(logits) - targets) / len(targets)
        loss = float((np.logaddexp(0, logits) - targets * logits).sum() / len(targets) + ridge * (offset**2).sum())
        inner = error * (1 + tail * exponential * (-scaled < TAIL_END))
        gradient = (
            [(inner * held_out_logits).sum()],
            [-(error * exponential).sum()],
            inner.sum(axis=0) + 2 * ridge * offset,
        )
        return loss, np.concatenate(gradient)

    start = np.concatenate([[1.0, 0.0], np.zeros(targets.shape[1])])
    bounds = [(None, None), (0.0, None if has_tail else 0.0), *[(None, None)] * targets.shape[1]]
    options = {"maxiter": MAX_ITERATIONS}
    best = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return Scale(float(best[0]), best[2:].astype(np.float32), float(best[1]))


def expected_threshold(scores: np.ndarray) -> float:
    """Choose the threshold with the best expected F1 for calibrated scores, float [N].

    No label is used: most classes have too few true images to choose a threshold by them. The best threshold is half of the best F1,
    so it is never above 0.5 (Lipton et al., "Optimal Thresholding of Classifiers to Maximize F1 Measure", arXiv 1402.1892).
    """
    values = []
    for candidate in CANDIDATE_THRESHOLDS:
        predicted = scores > candidate
        values.append(2 * (scores * predicted).sum() / (predicted.sum() + scores.sum() + 1e-9))
    return float(CANDIDATE_THRESHOLDS[int(np.argmax(values))])


def thresholds_by_class(scores: np.ndarray) -> np.ndarray:
    """Choose thresholds, float [C], for calibrated scores [N, C]: halfway between the best for the class and the best for all classes."""
    own = np.array([expected_threshold(class_scores) for class_scores in scores.T])
    halfway: np.ndarray = (own + expected_threshold(scores.ravel())) / 2
    return halfway


def as_logits(scores: np.ndarray, clip: float = 1e-5) -> np.ndarray:
    """Convert scores, clipped to [clip, 1 - clip], to logits float32."""
    clipped = np.clip(scores, clip, 1 - clip)
    logits: np.ndarray = np.log(clipped / (1 - clipped)).astype(np.float32)
    return logits


def sigmoid(logits: np.ndarray) -> np.ndarray:
    # exp overflows for large positive numbers only; this way there are none.
    return np.where(
        logits >= 0, 1 / (1 + np.exp(-np.abs(logits))), np.exp(-np.abs(logits)) / (1 + np.exp(-np.abs(logits)))
    )

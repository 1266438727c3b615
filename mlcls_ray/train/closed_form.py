"""Fit a linear layer on fixed features: ridge regression in closed form, judged by its exact leave-one-out predictions, added to the logits
that the head gives already.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

STRENGTHS = 10.0 ** np.arange(-1, 4.5, 0.5)
"""Candidates for the weight of ‖W‖², as a share of the features' mean squared norm divided by the number of images."""
OFFSET_PENALTY = 0.02
"""Weight of the squared offsets: a class with few images keeps its offset."""
MAX_ITERATIONS = 300


class Readout(NamedTuple):
    """Logits [N, C] = `keep` [C] · the head's logits + inputs · `weight` [F, C] + `bias` [C]."""

    keep: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def logits(self, inputs: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Compute logits float32 [N, C] of inputs [N, F], or [N, C, F] where each class has its own, and of the head's logits [N, C]."""
        product = inputs @ self.weight if inputs.ndim == 2 else np.einsum("ncf,fc->nc", inputs, self.weight)
        logits: np.ndarray = (self.keep * before + product + self.bias).astype(np.float32)
        return logits


def fit_readout(inputs: np.ndarray, before: np.ndarray, targets: np.ndarray, is_trained: np.ndarray) -> Readout:
    """Fit a linear layer that corrects a head's logits.

    Ridge regression predicts each target from the features. How far its predictions are trusted, and how far the logits before, is found by
    logistic regression on the leave-one-out predictions, which is also how the strength of the ridge is chosen.

    Args:
        inputs: float32 [N, F], or [N, C, F] where each class has its own.
        before: the head's logits, float32 [N, C].
        targets: float32 [N, C] in 0..1; NaN where unknown.
        is_trained: bool [C], the classes whose logits before mean something.
    """
    known = ~np.isnan(targets)
    filled = np.where(known, targets, np.nanmean(np.where(known.any(axis=0), targets, 0.0), axis=0))
    before = np.where(is_trained, before, 0.0)
    if inputs.ndim == 2:
        ridges = [Ridge.of(inputs, filled)]
    else:
        ridges = [Ridge.of(inputs[:, number], filled[:, [number]]) for number in range(inputs.shape[1])]
    candidates = []
    for strength in STRENGTHS:
        left_out = np.concatenate([ridge.leave_one_out(strength) for ridge in ridges], axis=1)
        candidates.append((*_trust(before, left_out, filled, known), strength))
    _, keep, share, offset, strength = min(candidates, key=lambda candidate: candidate[0])
    weights, biases = zip(*(ridge.solve(strength) for ridge in ridges), strict=True)
    return Readout(
        keep=np.where(is_trained, keep, 0.0).astype(np.float32),
        weight=(share * np.concatenate(weights, axis=1)).astype(np.float32),
        bias=(share * np.concatenate(biases) + offset).astype(np.float32),
    )


class Ridge(NamedTuple):
    """Ridge regression of centred targets [N, C] on standardised inputs [N, F], in the eigenvectors of its kernel matrix."""

    scaled: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    target_mean: np.ndarray
    centred: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, targets: np.ndarray) -> Ridge:
        mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
        deviation = deviation + 0.01 * deviation.mean() + 1e-6  # keeps features small that are almost always 0
        scaled = (inputs - mean) / deviation
        values, vectors = np.linalg.eigh((scaled @ scaled.T).astype(np.float64))
        target_mean = targets.mean(axis=0)
        return cls(scaled, mean, deviation, target_mean, targets - target_mean, np.maximum(values, 0.0), vectors)

    def penalty(self, strength: float) -> float:
        return float(strength * self.values.mean()) + 1e-9

    def solve(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return weight [F, C] and bias [C] for the inputs as they are."""
        shrunk = (self.vectors.T @ self.centred) / (self.values + self.penalty(strength))[:, None]
        weight = (self.scaled.T @ (self.vectors @ shrunk)) / self.deviation[:, None]
        return weight, self.target_mean - self.mean @ weight

    def leave_one_out(self, strength: float) -> np.ndarray:
        """Return for each image what a fit on all others predicts, [N, C]: exact, from the diagonal of the hat matrix."""
        gains = self.values / (self.values + self.penalty(strength))
        fitted = self.vectors @ (gains[:, None] * (self.vectors.T @ self.centred))
        leverage = (self.vectors**2) @ gains + 1 / len(self.centred)
        residual = (self.centred - fitted) / np.maximum(1 - leverage, 1e-6)[:, None]
        return np.asarray(self.target_mean + self.centred - residual)


def _trust(
    before: np.ndarray, predicted: np.ndarray, targets: np.ndarray, known: np.ndarray
) -> tuple[float, float, float, np.ndarray]:
    """Find keep, share and offsets [C] so that keep·before + share·predicted + offset has the least cross-entropy (the first result)."""
    count = known.sum()

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        keep, share, offset = flat[0], flat[1], flat[2:]
        logits = keep * before + share * predicted + offset
        loss = np.where(known, np.logaddexp(0, logits) - targets * logits, 0.0).sum() / count
        error = np.where(known, 1 / (1 + np.exp(-logits)) - targets, 0.0) / count
        gradient = [[(error * before).sum()], [(error * predicted).sum()]]
        penalty = OFFSET_PENALTY * (offset**2).sum() / count
        return float(loss + penalty), np.concatenate(
            [*gradient, error.sum(axis=0) + 2 * OFFSET_PENALTY * offset / count]
        )

    start = np.concatenate([[1.0, 4.0], np.zeros(targets.shape[1])])
    bounds = [(0.0, None), (0.0, None), *[(None, None)] * targets.shape[1]]
    options = {"maxiter": MAX_ITERATIONS}
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return float(found.fun), float(found.x[0]), float(found.x[1]), found.x[2:]

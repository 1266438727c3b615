"""A linear head on frozen features: multi-label logistic regression with soft targets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from mlcls_ray.labels.metrics import micro_f1


class LinearHead(NamedTuple):
    """Logits = features [N, F] @ weight [F, C] + bias [C]."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        logits: np.ndarray = features @ self.weight + self.bias
        return logits


def fit(
    features: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray, l2: float, iterations: int = 60
) -> LinearHead:
    """Minimise the weighted mean of binary cross-entropy plus `l2`·‖W‖² by L-BFGS, on standardised features.

    The standardisation is folded into the head that is returned.

    Args:
        features: float32 [N, F].
        targets: float32 [N, C] in 0..1; probabilities are fine.
        sample_weight: float [N].
        l2: penalty on the weights of standardised features.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-2
    x = ((features - mean) / deviation).astype(np.float32)
    share = (sample_weight / sample_weight.sum()).astype(np.float32)[:, None]
    inputs, classes = x.shape[1], targets.shape[1]

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = flat[: inputs * classes].reshape(inputs, classes).astype(np.float32)
        logits = x @ weight + flat[inputs * classes :].astype(np.float32)
        loss = float(((np.logaddexp(0, logits) - targets * logits) * share).sum() + l2 * (weight**2).sum())
        error = (sigmoid(logits) - targets) * share
        gradient = np.concatenate([(x.T @ error + 2 * l2 * weight).ravel(), error.sum(axis=0)])
        return loss, gradient.astype(np.float64)

    prior = np.clip((targets * share).sum(axis=0), 1e-4, 1 - 1e-4)
    start = np.concatenate([np.zeros(inputs * classes), np.log(prior / (1 - prior))])
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations}).x
    weight = (found[: inputs * classes].reshape(inputs, classes) / deviation[:, None]).astype(np.float32)
    bias = (found[inputs * classes :] - mean @ weight).astype(np.float32)
    return LinearHead(weight, bias)


def calibrate(head: LinearHead, held_out_logits: np.ndarray, targets: np.ndarray, ridge: float = 0.01) -> LinearHead:
    """Platt scaling: one slope for all classes, one offset per class (shrunk by `ridge`), folded into the head.

    Strong penalties make timid scores, and a training pool with another class balance biased ones. Ranks within a class, and so
    the average precision, stay as they are.

    Args:
        held_out_logits: float [N, C] of images that the fit behind them had not seen.
        targets: 0/1 [N, C].
    """
    classes = targets.shape[1]

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        slope, offset = flat[0], flat[1:]
        logits = slope * held_out_logits + offset
        error = (sigmoid(logits) - targets) / len(targets)
        loss = float((np.logaddexp(0, logits) - targets * logits).sum() / len(targets) + ridge * (offset**2).sum())
        return loss, np.concatenate([[(error * held_out_logits).sum()], error.sum(axis=0) + 2 * ridge * offset])

    start = np.concatenate([[1.0], np.zeros(classes)])
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B").x
    return LinearHead(
        (head.weight * found[0]).astype(np.float32), (head.bias * found[0] + found[1:]).astype(np.float32)
    )


def best_threshold(scores: np.ndarray, targets: np.ndarray) -> float:
    """The one threshold (a multiple of 0.01) that gives the best micro-F1 of scores [N, C] against targets [N, C]."""
    candidates = np.arange(0.05, 0.96, 0.01)
    values = [micro_f1(scores > candidate, targets > 0.5) for candidate in candidates]
    return round(float(candidates[int(np.argmax(values))]), 2)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    # exp of a large negative number is 0, of a large positive one overflows; half by half neither happens.
    return np.where(
        logits >= 0, 1 / (1 + np.exp(-np.abs(logits))), np.exp(-np.abs(logits)) / (1 + np.exp(-np.abs(logits)))
    )

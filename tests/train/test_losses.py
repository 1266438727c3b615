"""The losses against their formulas, written out in numpy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from mlcls_ray.train.config import Loss
from mlcls_ray.train.losses import local_loss, training_loss

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(4, 3)).astype(np.float32)
TARGETS = np.array([[0, 1, 0.3], [1, 0, 0], [0.5, 0.01, 1], [0, 0, 0]], np.float32)
KNOWN = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0]], np.float32)


def value(loss: Loss, logit_clip: float | None = None) -> float:
    tensors = (paddle.to_tensor(values) for values in (LOGITS, TARGETS, KNOWN))
    return float(training_loss(*tensors, loss, logit_clip))


def test_with_zeros_it_is_cross_entropy() -> None:
    scores = 1 / (1 + np.exp(-LOGITS))
    entropy = -(TARGETS * np.log(scores) + (1 - TARGETS) * np.log(1 - scores))
    assert value(Loss(gamma_negative=0.0, clip=0.0)) == pytest.approx((entropy * KNOWN).sum() / 4, rel=1e-5)


def test_asymmetric_loss_by_its_formula() -> None:
    scores = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    shifted = np.maximum(scores - 0.1, 0)
    positive = TARGETS * (1 - scores) ** 1.0 * np.log(scores)
    negative = (1 - TARGETS) * shifted**2.0 * np.log(1 - shifted)
    expected = -((positive + negative) * KNOWN).sum() / 4
    assert value(Loss(gamma_negative=2.0, gamma_positive=1.0, clip=0.1)) == pytest.approx(expected, rel=1e-4)


def test_squared_logits_by_their_formula() -> None:
    clipped = np.clip(TARGETS, 0.05, 0.95)
    squares = (LOGITS - np.log(clipped / (1 - clipped))) ** 2
    assert value(Loss(), 0.05) == pytest.approx((squares * KNOWN).sum() / 4, rel=1e-5)


@pytest.mark.parametrize("logit_clip", [0.05, None])
def test_local_loss_is_the_mean_over_the_positions(logit_clip: float | None) -> None:
    maps = RANDOM.normal(size=(4, 3, 2, 5)).astype(np.float32)
    targets = RANDOM.random((4, 3, 2, 5)).astype(np.float32)
    known = paddle.to_tensor(KNOWN)
    by_position = [
        float(
            training_loss(
                paddle.to_tensor(maps[..., y, x]), paddle.to_tensor(targets[..., y, x]), known, Loss(), logit_clip
            )
        )
        for y in range(2)
        for x in range(5)
    ]
    loss = local_loss(paddle.to_tensor(maps), paddle.to_tensor(targets), known, Loss(), logit_clip)
    assert float(loss) == pytest.approx(np.mean(by_position), rel=1e-5)

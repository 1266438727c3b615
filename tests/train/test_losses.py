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


def value(loss: Loss) -> float:
    return float(training_loss(*(paddle.to_tensor(one) for one in (LOGITS, TARGETS, KNOWN)), loss))


def test_all_zero_is_cross_entropy() -> None:
    scores = 1 / (1 + np.exp(-LOGITS))
    entropy = -(TARGETS * np.log(scores) + (1 - TARGETS) * np.log(1 - scores))
    assert value(Loss(gamma_negative=0.0, clip=0.0)) == pytest.approx((entropy * KNOWN).sum() / 4, rel=1e-5)


def test_squared_logits() -> None:
    kept = np.clip(TARGETS, 0.05, 0.95)
    squares = (LOGITS - np.log(kept / (1 - kept))) ** 2
    assert value(Loss(margin=0.05)) == pytest.approx((squares * KNOWN).sum() / 4, rel=1e-5)


@pytest.mark.parametrize("loss", [Loss(margin=0.05), Loss()])
def test_local_loss_is_the_mean_over_the_positions(loss: Loss) -> None:
    maps = RANDOM.normal(size=(4, 3, 2, 5)).astype(np.float32)
    targets = RANDOM.random((4, 3, 2, 5)).astype(np.float32)
    known = paddle.to_tensor(KNOWN)
    each = [
        float(training_loss(paddle.to_tensor(maps[..., y, x]), paddle.to_tensor(targets[..., y, x]), known, loss))
        for y in range(2)
        for x in range(5)
    ]
    given = local_loss(paddle.to_tensor(maps), paddle.to_tensor(targets), known, loss)
    assert float(given) == pytest.approx(np.mean(each), rel=1e-5)

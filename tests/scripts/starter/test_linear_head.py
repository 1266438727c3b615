"""The starter's ridge regression, calibration and thresholds, compared with scikit-learn and with known parameters."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import Ridge
from starter.linear_head import (
    Moments,
    as_logits,
    calibrate,
    expected_threshold,
    sigmoid,
    thresholds_by_class,
)

from mlcls_ray.models.heads import TAIL_END


def test_sigmoid_inverts_logits() -> None:
    scores = np.array([0.0, 0.02, 0.5, 0.9, 1.0], np.float32)
    np.testing.assert_allclose(sigmoid(as_logits(scores)), np.clip(scores, 1e-5, 1 - 1e-5), rtol=1e-3)
    np.testing.assert_allclose(sigmoid(as_logits(scores, 0.1)), np.clip(scores, 0.1, 0.9), rtol=1e-3)


def test_ridge_on_summed_moments() -> None:
    """The sums of seven parts give the head that scikit-learn finds on standardised features."""
    random = np.random.default_rng(0)
    features = (random.normal(size=(300, 6)) * [1, 2, 3, 1, 1, 5] + 4).astype(np.float32)
    targets = (features @ random.normal(size=(6, 2)) + random.normal(size=(300, 2))).astype(np.float32)
    moments = None
    for rows in np.array_split(np.arange(300), 7):
        moments = Moments.of(features[rows], targets[rows]).plus(moments)
    assert moments is not None
    head = moments.ridge(0.5)
    deviation = features.std(axis=0)
    deviation = deviation + 0.01 * deviation.mean() + 1e-3
    expected = Ridge(alpha=0.5 * 300).fit(features / deviation, targets)
    np.testing.assert_allclose(head.weight, (expected.coef_ / deviation).T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features @ head.weight + head.bias, expected.predict(features / deviation), atol=1e-2)


def test_a_feature_that_is_always_0() -> None:
    features = np.zeros((50, 2), np.float32)
    features[:, 0] = np.arange(50)
    head = Moments.of(features, features[:, :1] * 2).ridge(1e-6)
    np.testing.assert_allclose(head.weight[:, 0], [2, 0], atol=1e-3)


def test_calibration_finds_slope_and_offsets() -> None:
    random = np.random.default_rng(0)
    true = random.normal(size=(20_000, 2)) * 2 + [-1, 1]
    targets = (random.random(true.shape) < sigmoid(true)).astype(np.float32)
    scale = calibrate((true - [0.5, -0.5]) / 3, targets, ridge=0.0)
    assert abs(scale.slope - 3) < 0.15
    np.testing.assert_allclose(scale.offset, [0.5, -0.5], atol=0.1)


def test_calibration_finds_a_tail() -> None:
    """Logits that stop at -3, although the class is far less likely there."""
    random = np.random.default_rng(0)
    clipped = np.maximum(random.normal(size=(40_000, 2)) * 3 - 1, -3 + random.random((40_000, 2)))
    true = clipped - 0.2 * np.exp(np.minimum(-clipped, TAIL_END))
    targets = (random.random(true.shape) < sigmoid(true)).astype(np.float32)
    scale = calibrate(clipped, targets, ridge=0.0, has_tail=True)
    assert abs(scale.tail - 0.2) < 0.06 and abs(scale.slope - 1) < 0.1
    np.testing.assert_allclose(sigmoid(scale.logits(clipped)), sigmoid(true), atol=0.02)
    assert calibrate(clipped, targets, ridge=0.0).tail == 0
    order = np.argsort(clipped[:, 0])
    assert (np.diff(scale.logits(clipped)[order, 0]) >= 0).all(), "ranks stay"


def test_the_threshold_is_half_of_the_best_f1() -> None:
    random = np.random.default_rng(0)
    scores = random.beta(0.5, 3, 200_000)
    threshold = expected_threshold(scores)
    candidates = (0.1, threshold, 0.4)
    f1 = {cut: 2 * scores[scores > cut].sum() / ((scores > cut).sum() + scores.sum()) for cut in candidates}
    assert max(candidates, key=lambda cut: f1[cut]) == threshold
    assert abs(threshold - f1[threshold] / 2) < 0.01
    is_true = random.random(len(scores)) < scores
    is_predicted = scores > threshold
    assert abs(2 * is_true[is_predicted].sum() / (is_predicted.sum() + is_true.sum()) - f1[threshold]) < 0.01


def test_thresholds_by_class() -> None:
    random = np.random.default_rng(0)
    scores = np.stack([random.beta(3, 3, 5000), random.beta(0.3, 5, 5000), np.zeros(5000)], axis=1)
    high, low, zero = thresholds_by_class(scores)
    together = expected_threshold(scores.ravel())
    assert low < together < high <= (0.5 + together) / 2
    np.testing.assert_allclose(high, (expected_threshold(scores[:, 0]) + together) / 2)
    assert zero < together

"""The starter's closed forms: ridge regression, calibration, thresholds by class."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import Ridge

from mlcls_ray.training.linear_head import Moments, as_logits, calibrate, sigmoid, thresholds_by_class


def test_logits_come_back() -> None:
    scores = np.array([0.0, 0.02, 0.5, 0.9, 1.0], np.float32)
    np.testing.assert_allclose(sigmoid(as_logits(scores)), np.clip(scores, 1e-5, 1 - 1e-5), rtol=1e-3)
    np.testing.assert_allclose(sigmoid(as_logits(scores, 0.1)), np.clip(scores, 0.1, 0.9), rtol=1e-3)


def test_ridge_in_parts() -> None:
    """The moments of parts add up to those of all; the head is scikit-learn's on standardised features."""
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


def test_a_feature_that_never_fires() -> None:
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


def test_thresholds_by_class() -> None:
    """Two classes, one of them at twice the other's scores; the best cuts lie between 0.2 and 0.3, and between 0.4 and 0.6."""
    targets = np.repeat([0.0, 1.0], 1000)[:, None] * np.ones((1, 2))
    scores = np.where(targets > 0.5, [[0.3, 0.6]], [[0.2, 0.4]])
    many = thresholds_by_class(scores, targets, together=0.5)
    assert 0.2 <= many[0] < 0.3 and 0.4 <= many[1] < 0.6
    few = thresholds_by_class(scores[995:1005], targets[995:1005], together=0.5)
    assert many[0] < few[0] < 0.5, "few images: near the threshold of all classes"

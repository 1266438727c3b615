"""The starter's linear head: folds that do not see what they score, and thresholds by class."""

from __future__ import annotations

import numpy as np

from mlcls_ray.training.linear_head import LinearHead, as_logits, cross_fit, fit, sigmoid, thresholds_by_class


def test_logits_come_back() -> None:
    scores = np.array([0.0, 0.02, 0.5, 0.9, 1.0], np.float32)
    np.testing.assert_allclose(sigmoid(as_logits(scores)), np.clip(scores, 1e-5, 1 - 1e-5), rtol=1e-3)
    logits = np.array([[1.5, -2.0]], np.float32)
    np.testing.assert_array_equal(LinearHead.identity(2).logits(logits), logits)


def test_no_fold_has_seen_what_it_scores() -> None:
    """Targets that have nothing to do with the features: a head knows those that it was fitted on, and no others."""
    random = np.random.default_rng(0)
    features, targets = random.normal(size=(100, 80)).astype(np.float32), random.integers(0, 2, (100, 1))
    targets = targets.astype(np.float32)
    twice, weight = np.concatenate([features, features]), np.ones(100)

    def right(logits: np.ndarray) -> float:
        return float(((logits > 0) == (targets > 0.5)).mean())

    assert right(fit(features, targets, weight, 1e-4).logits(features)) > 0.95
    assert right(cross_fit(twice, targets, weight, 1e-4)) < 0.65


def test_thresholds_by_class() -> None:
    """Two classes, one of them at twice the other's scores; the best cuts lie between 0.2 and 0.3, and between 0.4 and 0.6."""
    targets = np.repeat([0.0, 1.0], 1000)[:, None] * np.ones((1, 2))
    scores = np.where(targets > 0.5, [[0.3, 0.6]], [[0.2, 0.4]])
    many = thresholds_by_class(scores, targets, np.ones(2000), together=0.5)
    assert 0.2 <= many[0] < 0.3 and 0.4 <= many[1] < 0.6
    few = thresholds_by_class(scores[995:1005], targets[995:1005], np.ones(10), together=0.5)
    assert many[0] < few[0] < 0.5, "few images: near the threshold of all classes"
    counted = thresholds_by_class(scores[995:1005], targets[995:1005], np.full(10, 200.0), together=0.5)
    np.testing.assert_allclose(counted, many, atol=1e-6)


def test_a_probability_counts_as_so_much_of_an_image() -> None:
    scores = np.repeat([0.1, 0.5, 0.9], 1000)[:, None]
    unlikely, likely = (np.repeat([0.0, one, 1.0], 1000)[:, None] for one in (0.1, 0.9))
    assert thresholds_by_class(scores, unlikely, np.ones(3000), 0.5)[0] >= 0.49
    assert thresholds_by_class(scores, likely, np.ones(3000), 0.5)[0] < 0.5

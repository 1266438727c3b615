"""Chosen thresholds reach their target, and no other threshold does better."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls_ray.errors import UsageError
from mlcls_ray.labels.calibration import Target, best_threshold, choose_thresholds, parse_target


def random_scores(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Scores and targets of one class."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 20, count) / 20 + 0.01  # with ties
    targets = random.random(count) < scores
    targets[0] = True
    return scores, targets


def quality(scores: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[float, float, float]:
    """Precision, recall and F1 at a threshold."""
    predicted = scores > threshold
    hits = (predicted & targets).sum()
    precision, recall = hits / max(predicted.sum(), 1), hits / targets.sum()
    return float(precision), float(recall), float(2 * hits / (predicted.sum() + targets.sum()))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_other_threshold_does_better(seed: int) -> None:
    scores, targets = random_scores(seed)
    alternatives = [quality(scores, targets, threshold) for threshold in np.append(np.unique(scores) - 0.005, 1.0)]
    _, _, f1 = quality(scores, targets, best_threshold(scores, targets, Target("f1")))
    assert f1 == pytest.approx(max(alternative[2] for alternative in alternatives))
    precision, recall, _ = quality(scores, targets, best_threshold(scores, targets, Target("precision", 0.7)))
    reachable = [alternative for alternative in alternatives if alternative[0] >= 0.7 and alternative[1] > 0]
    if reachable:
        assert precision >= 0.7
        assert recall == pytest.approx(max(alternative[1] for alternative in reachable))
    precision, recall, _ = quality(scores, targets, best_threshold(scores, targets, Target("recall", 0.8)))
    assert recall >= 0.8
    assert precision == pytest.approx(max(alternative[0] for alternative in alternatives if alternative[1] >= 0.8))


def test_a_class_with_few_images_gets_the_common_threshold() -> None:
    scores, targets = (
        np.stack([random_scores(1)[0], random_scores(2)[0]], axis=1),
        np.stack([random_scores(1)[1], np.zeros(60, bool)], axis=1),
    )
    targets[:2, 1] = True
    thresholds = choose_thresholds(scores, targets, Target("f1"))
    assert thresholds.dtype == np.float32
    assert thresholds[1] == np.float32(best_threshold(scores.ravel(), targets.ravel(), Target("f1")))
    assert thresholds[0] == np.float32(best_threshold(scores[:, 0], targets[:, 0], Target("f1")))


def test_targets_on_the_command_line() -> None:
    assert parse_target("f1") == Target("f1")
    assert parse_target("precision=0.9") == Target("precision", 0.9)
    assert str(parse_target("recall=1")) == "recall=1"
    for text in ("f2", "precision", "precision=90", "recall=-1"):
        with pytest.raises(UsageError, match="--target"):
            parse_target(text)

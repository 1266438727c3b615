"""Thresholds for a purpose: what they promise holds, and nothing better was possible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls_ray.errors import UsageError
from mlcls_ray.labels.calibration import Target, best_threshold, choose_thresholds, parse_target


def drawn(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 20, count) / 20 + 0.01  # with ties
    targets = random.random(count) < scores
    targets[0] = True
    return scores, targets


def at(scores: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[float, float, float]:
    given_ = scores > threshold
    hits = (given_ & targets).sum()
    precision, recall = hits / max(given_.sum(), 1), hits / targets.sum()
    return float(precision), float(recall), float(2 * hits / (given_.sum() + targets.sum()))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_nothing_better_is_possible(seed: int) -> None:
    scores, targets = drawn(seed)
    others = [at(scores, targets, threshold) for threshold in np.append(np.unique(scores) - 0.005, 1.0)]
    _, _, f1 = at(scores, targets, best_threshold(scores, targets, Target("f1")))
    assert f1 == pytest.approx(max(other[2] for other in others))
    precision, recall, _ = at(scores, targets, best_threshold(scores, targets, Target("precision", 0.7)))
    reachable = [other for other in others if other[0] >= 0.7 and other[1] > 0]
    if reachable:
        assert precision >= 0.7
        assert recall == pytest.approx(max(other[1] for other in reachable))
    precision, recall, _ = at(scores, targets, best_threshold(scores, targets, Target("recall", 0.8)))
    assert recall >= 0.8
    assert precision == pytest.approx(max(other[0] for other in others if other[1] >= 0.8))


def test_a_class_of_few_images_gets_the_common_threshold() -> None:
    scores, targets = np.stack([drawn(1)[0], drawn(2)[0]], axis=1), np.stack([drawn(1)[1], np.zeros(60, bool)], axis=1)
    targets[:2, 1] = True
    chosen = choose_thresholds(scores, targets, Target("f1"))
    assert chosen.dtype == np.float32
    assert chosen[1] == np.float32(best_threshold(scores.ravel(), targets.ravel(), Target("f1")))
    assert chosen[0] == np.float32(best_threshold(scores[:, 0], targets[:, 0], Target("f1")))


def test_words() -> None:
    assert parse_target("f1") == Target("f1")
    assert parse_target("precision=0.9") == Target("precision", 0.9)
    assert str(parse_target("recall=1")) == "recall=1"
    for text in ("f2", "precision", "precision=90", "recall=-1"):
        with pytest.raises(UsageError, match="--target"):
            parse_target(text)

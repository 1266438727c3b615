"""Metrics agree with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from mlcls_ray.labels.metrics import (
    agreement,
    average_precision,
    calibration_error,
    mean_average_precision,
    micro_f1,
    per_class_average_precision,
)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), levels=st.integers(1, 20))
def test_average_precision_equals_scikit_learns(seed: int, count: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, levels, count) / levels  # with ties
    targets = random.random(count) < 0.4
    targets[random.integers(count)] = True
    assert average_precision(scores, targets) == pytest.approx(average_precision_score(targets, scores))


def test_mean_leaves_out_classes_without_positives() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    targets = np.array([[1, 0], [0, 0]])
    assert np.isnan(per_class_average_precision(scores, targets)[1])
    assert mean_average_precision(scores, targets) == 1.0


def test_micro_f1() -> None:
    random = np.random.default_rng(0)
    predicted, targets = random.random((2, 30, 5)) < 0.3
    assert micro_f1(predicted, targets) == pytest.approx(f1_score(targets, predicted, average="micro"))
    assert micro_f1(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 0.0


def test_agreement_equals_scikit_learns() -> None:
    random = np.random.default_rng(1)
    predicted, targets = random.random((2, 40, 6)) < 0.3
    targets[:, 0] = False  # a class without a true image
    result = agreement(predicted, targets)
    assert result.overall_f1 == pytest.approx(f1_score(targets, predicted, average="micro"))
    assert result.overall_precision == pytest.approx(precision_score(targets, predicted, average="micro"))
    with_true = (targets[:, 1:], predicted[:, 1:])
    assert result.class_precision == pytest.approx(precision_score(*with_true, average="macro"))
    assert result.class_recall == pytest.approx(recall_score(*with_true, average="macro"))
    assert result.class_f1 == pytest.approx(
        2 * result.class_precision * result.class_recall / (result.class_precision + result.class_recall)
    )
    no_labels = agreement(np.zeros((2, 2), bool), np.zeros((2, 2), bool))
    assert set(no_labels) == {0.0}


def test_calibration_error() -> None:
    random = np.random.default_rng(2)
    scores = random.random((20_000, 3))
    assert calibration_error(scores, random.random(scores.shape) < scores) < 0.02
    assert calibration_error(np.ones((10, 2)), np.zeros((10, 2), bool)) == pytest.approx(1.0)

"""Selection: own threshold per class, strictly above, best first, ties by class id."""

from __future__ import annotations

import numpy as np

from mlcls_ray.labels.select import keep_top, select


def test_each_class_has_its_own_threshold() -> None:
    """PaddleX pairs the list with the images of the batch instead (reference/paddlex.md §1.3)."""
    found = select(np.array([[0.9, 0.5, 0.2]], np.float32), np.array([0.95, 0.01, 0.01], np.float32))
    assert found.class_ids.tolist() == [1, 2]


def test_strictly_above_in_float32() -> None:
    """reference/paddlex.md §13, 19: a score of float32(0.7) is not above 0.7."""
    found = select(
        np.array([[0.7, np.nextafter(np.float32(0.7), np.float32(1))]], np.float32), np.full(2, 0.7, np.float32)
    )
    assert found.class_ids.tolist() == [1]


def test_order_is_by_score_then_class_id() -> None:
    found = select(np.array([[0.6, 0.9, 0.6, 0.95]], np.float32), np.full(4, 0.5, np.float32))
    assert found.class_ids.tolist() == [3, 1, 0, 2]
    assert found.class_ids.dtype == np.int16
    assert found.scores.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all()


def test_nothing_above() -> None:
    found = select(np.zeros((2, 4), np.float32), np.full(4, 0.5, np.float32))
    assert found.class_ids.size == found.scores.size == 0
    assert found.offsets.tolist() == [0, 0, 0]


def test_each_image_has_its_own_labels() -> None:
    scores = np.random.default_rng(0).random((200, 80), dtype=np.float32)
    thresholds = np.linspace(0.5, 1.0, 80, dtype=np.float32)
    found = select(scores, thresholds)
    for number, row in enumerate(scores):
        own = slice(found.offsets[number], found.offsets[number + 1])
        expected = sorted(
            (class_id for class_id in range(80) if row[class_id] > thresholds[class_id]),
            key=lambda one: (-row[one], one),
        )
        assert found.class_ids[own].tolist() == expected
        assert found.scores[own].tolist() == row[expected].tolist()


def test_keep_top() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]], np.float32)
    kept = keep_top(scores, 2)
    assert np.isnan(kept).tolist() == [[True, False, False], [False, False, True]]
    assert np.array_equal(keep_top(scores, 7), scores)

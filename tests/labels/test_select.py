"""Selection: each class has its own threshold, a label is above it, the best label comes first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import mlcls_ray
from mlcls_ray.labels.select import above_threshold, keep_top, round_beside, select


def test_each_class_has_its_own_threshold() -> None:
    """PaddleX pairs such a list with the images of the batch instead."""
    selection = select(np.array([[0.9, 0.5, 0.2]], np.float32), np.array([0.95, 0.01, 0.01], np.float32))
    assert selection.class_ids.tolist() == [1, 2]


def test_a_score_that_equals_its_threshold_is_no_label() -> None:
    """As in PaddleX, in float32: a score of float32(0.7) is not above 0.7. To make it one, change `above_threshold`."""
    assert above_threshold(np.float32([[0.7, 0.71, np.nan]]), np.full(3, 0.7, np.float32)).tolist() == [
        [False, True, False]
    ]
    selection = select(
        np.array([[0.7, np.nextafter(np.float32(0.7), np.float32(1))]], np.float32), np.full(2, 0.7, np.float32)
    )
    assert selection.class_ids.tolist() == [1]


def test_order_is_by_score_then_class_id() -> None:
    selection = select(np.array([[0.6, 0.9, 0.6, 0.95]], np.float32), np.full(4, 0.5, np.float32))
    assert selection.class_ids.tolist() == [3, 1, 0, 2]
    assert selection.class_ids.dtype == np.int16
    assert selection.scores.dtype == np.float32
    assert (np.diff(selection.scores) <= 0).all()


def test_no_score_above_its_threshold() -> None:
    selection = select(np.zeros((2, 4), np.float32), np.full(4, 0.5, np.float32))
    assert selection.class_ids.size == selection.scores.size == 0
    assert selection.offsets.tolist() == [0, 0, 0]


def test_each_image_has_its_own_labels() -> None:
    scores = np.random.default_rng(0).random((200, 80), dtype=np.float32)
    thresholds = np.linspace(0.5, 1.0, 80, dtype=np.float32)
    selection = select(scores, thresholds)
    for image, row in enumerate(scores):
        labels = slice(selection.offsets[image], selection.offsets[image + 1])
        expected = sorted(
            (class_id for class_id in range(80) if row[class_id] > thresholds[class_id]),
            key=lambda class_id: (-row[class_id], class_id),
        )
        assert selection.class_ids[labels].tolist() == expected
        assert selection.scores[labels].tolist() == row[expected].tolist()


def test_keep_top_replaces_the_other_scores_by_nan() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]], np.float32)
    kept = keep_top(scores, 2)
    assert np.isnan(kept).tolist() == [[True, False, False], [False, False, True]]
    assert np.array_equal(keep_top(scores, 7), scores)


def test_a_label_map_keeps_the_best_class_of_each_label() -> None:
    """Classes 1 and 3 are one label, class 2 gives none."""
    groups = np.array([0, 1, -1, 1], np.int32)
    scores = np.array(
        [[0.6, 0.7, 0.9, 0.8], [0.6, 0.9, 0.1, 0.8], [0.1, 0.1, 0.9, 0.1], [0.8, 0.8, 0.1, 0.8]], np.float32
    )
    selection = select(scores, np.full(4, 0.5, np.float32), groups)
    assert selection.offsets.tolist() == [0, 2, 4, 4, 6]
    assert selection.class_ids.tolist() == [3, 0, 1, 0, 0, 1], "best first, equal scores in order of class id"
    assert selection.scores.tolist() == np.float32([0.8, 0.6, 0.9, 0.6, 0.8, 0.8]).tolist()
    assert (selection.offsets.dtype, selection.class_ids.dtype) == (np.int32, np.int16)


def test_a_map_that_merges_nothing_changes_nothing() -> None:
    scores = np.random.default_rng(0).random((50, 20), dtype=np.float32)
    thresholds = np.full(20, 0.5, np.float32)
    plain, mapped = select(scores, thresholds), select(scores, thresholds, np.arange(20, dtype=np.int32))
    for before, after in zip(plain, mapped, strict=True):
        assert before.tolist() == after.tolist()


def test_rounding_beside_a_threshold_never_crosses_it() -> None:
    thresholds = np.array([0.3, 0.7, 0.0, 0.5], np.float32)
    near = [np.nextafter(thresholds, np.float32(side)) for side in (-1, 2)]
    scores = np.clip(np.stack([thresholds, *near]), 0, 1)
    scores[0, 3] = np.nan
    rounded = round_beside(scores, thresholds)
    assert above_threshold(rounded, thresholds).tolist() == above_threshold(scores, thresholds).tolist()
    assert np.array_equal(rounded.astype(np.float16).astype(np.float32), rounded, equal_nan=True)
    assert np.nanmax(np.abs(rounded - scores)) < 1e-3
    far = np.random.default_rng(0).random((20, 4), np.float32)
    assert np.array_equal(round_beside(far, np.float32([2, 2, 2, 2])), far.astype(np.float16).astype(np.float32))


def comparisons(tree: ast.AST) -> Iterator[str]:
    """Each ordering of something named scores and something named thresholds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Gt, ast.GtE, ast.Lt, ast.LtE)):
            text = ast.unparse(node).lower()
            if "threshold" in text and "score" in text:
                yield text


def test_scores_are_compared_with_thresholds_in_one_place() -> None:
    package = Path(mlcls_ray.__file__).parent
    places = {
        str(path.relative_to(package)): list(comparisons(ast.parse(path.read_text(encoding="utf-8"))))
        for path in package.rglob("*.py")
    }
    assert {path: texts for path, texts in places.items() if texts} == {"labels/select.py": ["scores > thresholds"]}

"""Thresholds from words and files; one per class; PaddleX's strict comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.config import Thresholds
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.thresholds import parse_thresholds, resolve, threshold_id

VOCABULARY = ("person", "fire hydrant", "cat")
OWN = (0.25, 0.25, 0.4)


def test_nothing_means_the_models_own() -> None:
    assert resolve(Thresholds(), VOCABULARY, OWN).tolist() == pytest.approx(OWN)


def test_number_pairs_and_class_ids() -> None:
    thresholds = parse_thresholds(["0.5,fire hydrant=0.7", "2=0.1"])
    assert resolve(thresholds, VOCABULARY, OWN).tolist() == pytest.approx([0.5, 0.7, 0.1])


def test_pairs_alone_keep_the_models_own_for_the_rest() -> None:
    assert resolve(parse_thresholds(["cat=0.9"]), VOCABULARY, OWN).tolist() == pytest.approx([0.25, 0.25, 0.9])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.yaml", "default: 0.5\ncat: 0.7\n"),
        ("t.json", '{"default": 0.5, "cat": 0.7}'),
        ("a,b.yaml", "default: 0.5\ncat: 0.7"),
    ],
)
def test_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert parse_thresholds([str(tmp_path / name)]) == Thresholds(default=0.5, classes={"cat": 0.7})


def test_a_file_may_hold_one_number(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("0.3\n")
    assert parse_thresholds([str(tmp_path / "t.yaml")]).default == 0.3


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("1.5", "between 0 and 1"),
        ("cat=high", "between 0 and 1"),
        ("cat=nan", "between 0 and 1"),
        ("no-such-file", "neither a number, nor class=number, nor a readable file"),
    ],
)
def test_wrong_words(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_thresholds([word])


def test_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(UsageError, match="not valid"):
        parse_thresholds([str(tmp_path / "t.yaml")])


def test_unknown_class_gets_a_hint() -> None:
    with pytest.raises(UsageError, match="unknown class 'persn': did you mean 'person'"):
        resolve(Thresholds(classes={"persn": 0.5}), VOCABULARY, OWN)
    with pytest.raises(UsageError, match="unknown class '3'"):
        resolve(Thresholds(classes={"3": 0.5}), VOCABULARY, OWN)


def test_threshold_id_names_one_number_and_tells_sets_apart() -> None:
    assert threshold_id(np.full(3, 0.5, np.float32)) == "0.5"
    first, second = (threshold_id(np.array(values, np.float32)) for values in ([0.5, 0.6], [0.6, 0.5]))
    assert first != second
    assert first.startswith("per-class-")

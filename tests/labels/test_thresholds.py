"""Thresholds in every form a user may write them, and what they are for each class of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlcls_ray.config_file import make_job
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.thresholds import Thresholds, parse_thresholds

VOCABULARY = ("person", "fire hydrant", "cat")
MODEL = (0.25, 0.25, 0.4)


def resolved(value: Any) -> list[float]:
    return parse_thresholds(value).resolve(VOCABULARY, MODEL).values.tolist()


@pytest.mark.parametrize("value", [None, {}, Thresholds()])
def test_nothing_means_the_models_own(value: Any) -> None:
    assert resolved(value) == pytest.approx(MODEL)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), "0.5", ["0.5"], {"default": 0.5}, Thresholds(default=0.5)])
def test_one_number_for_every_class(value: Any) -> None:
    assert resolved(value) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "value",
    [
        ["0.5,fire hydrant=0.7", "2=0.1"],
        "0.5, fire hydrant = 0.7, 2=0.1",
        ["default=0.5", "fire hydrant=0.7", "2=0.1"],
        {"default": 0.5, "fire hydrant": 0.7, 2: 0.1},
        {"default": 0.5, "classes": {"fire hydrant": 0.7, "2": 0.1}},
        [0.5, 0.7, 0.1],
        np.array([0.5, 0.7, 0.1]),
    ],
)
def test_numbers_by_class(value: Any) -> None:
    assert resolved(value) == pytest.approx([0.5, 0.7, 0.1])


def test_exceptions_alone_keep_the_models_own_for_the_other_classes() -> None:
    assert resolved("cat=0.9") == resolved({"cat": 0.9}) == pytest.approx([0.25, 0.25, 0.9])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.yaml", "default: 0.5\ncat: 0.7\n"),
        ("t.json", '{"default": 0.5, "cat": 0.7}'),
        ("a,b.yaml", "default: 0.5\ncat: 0.7"),
        ("a=b.yaml", "default: 0.5\ncat: 0.7"),
        ("calibrated.yaml", "version: 1\ntarget: f1\ndefault: 0.5\nclasses: {cat: 0.7}"),
    ],
)
def test_files(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    expected = Thresholds(default=0.5, classes={"cat": 0.7})
    assert parse_thresholds(path) == parse_thresholds(str(path)) == parse_thresholds([str(path)]) == expected


def test_a_file_may_hold_one_number(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("0.3\n")
    assert parse_thresholds(tmp_path / "t.yaml").default == 0.3


def test_words_and_a_file_together(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("cat: 0.7\n")
    expected = Thresholds(default=0.5, classes={"cat": 0.7, "person": 0.2})
    assert parse_thresholds(["0.5", str(tmp_path / "t.yaml"), "person=0.2"]) == expected


def test_words_longer_than_a_file_name_may_be() -> None:
    words = ",".join(f"class {number}=0.5" for number in range(80))
    assert len(parse_thresholds(words).classes) == 80


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1.5", "threshold: '1.5' is not a number between 0 and 1"),
        ("cat=high", "threshold: 'cat=high' is not a number between 0 and 1"),
        ("cat=nan", "threshold: 'cat=nan' is not a number between 0 and 1"),
        (float("nan"), "threshold: nan is not a number between 0 and 1"),
        (True, "threshold: True is not a number between 0 and 1"),
        ([0.5, 2], "threshold: 2 is not a number between 0 and 1"),
        ({"cat": 2}, "threshold: 'cat: 2' is not a number between 0 and 1"),
        ({"default": 0.5, "classes": {"cat": 2}}, "threshold.classes.cat: Input should be less than or equal to 1"),
        ("no-such-file", "threshold: 'no-such-file' is neither a number, nor class=number, nor a readable file"),
    ],
)
def test_wrong_values(value: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_thresholds(value)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system ['true']", "not valid"),
        ("version: 2\nclasses: {cat: 0.5}", "of version 2; this program reads 1"),
        ("cat: 1.5", "'cat: 1.5' in .*t.yaml is not a number between 0 and 1"),
        ("[0.5, 0.6, 0.7]", "is not a number between 0 and 1"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UsageError, match=rf"--threshold: .*{message}"):
        parse_thresholds([str(tmp_path / "t.yaml")], "--threshold")


@pytest.mark.parametrize("value", [0.5, {"cat": 0.5}, "0.5,cat=0.7", [0.1, 0.2, 0.3]])
def test_a_job_takes_every_form_and_its_yaml_gives_the_same_back(value: Any) -> None:
    threshold = make_job({"threshold": value}).threshold
    assert threshold == parse_thresholds(value)
    assert make_job({"threshold": threshold.model_dump(mode="json")}).threshold == threshold


def test_a_job_names_the_field_and_the_value() -> None:
    with pytest.raises(UsageError, match="^threshold: 'cat: high' is not a number between 0 and 1"):
        make_job({"threshold": {"cat": "high"}})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"persn": 0.5}, "threshold: unknown class 'persn': did you mean 'person'"),
        ({"3": 0.5}, "threshold: unknown class '3'"),
        ([0.5], "threshold: 1 numbers for 3 classes"),
        ([], "threshold: 0 numbers for 3 classes"),
    ],
)
def test_thresholds_that_do_not_fit_the_vocabulary(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolved(value)


def test_the_id_is_the_number_or_a_hash_and_stays_what_it_was_in_old_runs() -> None:
    def id_of(value: Any) -> str:
        return parse_thresholds(value).resolve(VOCABULARY, MODEL).id

    assert id_of(0.5) == id_of([0.5, 0.5, 0.5]) == "0.5"
    assert id_of([0.5, 0.6, 0.7]) == "per-class-4585642cb9a3"
    assert id_of([0.6, 0.5, 0.7]) != id_of([0.5, 0.6, 0.7])

"""Label maps in every form a user may write them, and what they make of a model's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlcls_ray.config_file import dump_config, load_job, make_job
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.label_map import LabelMap, merge_classes, parse_label_map

VOCABULARY = ("person", "car", "truck", "toaster", "cat")
FILE = "person: human\ncar: vehicle\ntruck: vehicle\ntoaster: null\n"
NAMES = ("human", "vehicle", "vehicle", None, "cat")


def names(value: Any) -> tuple[str | None, ...]:
    return parse_label_map(value).resolve(VOCABULARY).names


def refusal(value: Any, vocabulary: tuple[str, ...] = VOCABULARY) -> str:
    with pytest.raises(UsageError) as error:
        parse_label_map(value, "--map").resolve(vocabulary, field="--map")
    return str(error.value)


@pytest.mark.parametrize("value", [None, "none", {}, LabelMap()])
def test_no_map_changes_nothing(value: Any) -> None:
    resolved = parse_label_map(value).resolve(VOCABULARY)
    assert (resolved.names, resolved.labels) == (VOCABULARY, VOCABULARY)
    assert (resolved.changed, resolved.id, resolved.groups) == ({}, "", None)
    assert resolved.added_to("0.5") == "0.5"


def test_rename_merge_and_drop(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(FILE)
    resolved = parse_label_map(path).resolve(VOCABULARY)
    assert resolved.names == NAMES
    assert resolved.labels == ("human", "vehicle", "cat")
    assert resolved.groups is not None
    assert resolved.groups.tolist() == [0, 1, 1, -1, 2]
    assert resolved.changed == {"person": "human", "car": "vehicle", "truck": "vehicle", "toaster": None}
    mapping = {"person": "human", "car": "vehicle", "truck": "vehicle", "toaster": None}
    assert names(str(path)) == names(mapping) == names({"labels": mapping}) == NAMES


def test_labels_that_are_not_named_are_kept_or_dropped() -> None:
    assert names({"car": "vehicle"}) == ("person", "vehicle", "truck", "toaster", "cat")
    assert names({"car": "vehicle", "cat": "cat", "default": None}) == (None, "vehicle", None, None, "cat")


def test_a_name_of_another_label_merges_the_two_and_names_may_be_exchanged() -> None:
    assert names({"truck": "car"}) == ("person", "car", "car", "toaster", "cat")
    assert names({"truck": "car", "car": "truck"}) == ("person", "truck", "car", "toaster", "cat")


def test_the_id_names_what_is_changed() -> None:
    def id_of(value: Any) -> str:
        return parse_label_map(value).resolve(VOCABULARY).id

    assert id_of({"car": "vehicle"}) == id_of({"car": "vehicle", "cat": "cat"}) != id_of({"car": "auto"})
    assert id_of({"person": "person"}) == ""
    assert parse_label_map({"car": "vehicle"}).resolve(VOCABULARY).added_to("0.5") == f"0.5+{id_of({'car': 'vehicle'})}"


def test_a_map_of_several_models_names_the_classes_of_any_of_them() -> None:
    label_map = parse_label_map({"person": "human", "otter": "animal"})
    known = (*VOCABULARY, "otter", "seal")
    assert label_map.resolve(VOCABULARY, known).names[0] == "human"
    assert label_map.resolve(("otter", "seal"), known).names == ("animal", "seal")
    with pytest.raises(UsageError, match="map: the model has no label 'otter'"):
        label_map.resolve(VOCABULARY)


def test_a_job_takes_it_and_its_yaml_gives_the_same_back(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(FILE + "default: null\n")
    job = make_job({"map": str(path)})
    config = tmp_path / "job.yaml"
    config.write_text(dump_config(job))
    path.unlink()
    assert load_job(config, {}).map.resolve(VOCABULARY) == job.map.resolve(VOCABULARY)
    with pytest.raises(UsageError, match=r"^map: '.*/map.yaml' cannot be read: No such file"):
        make_job({"map": str(path)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"persn": "human"}, "--map: the model has no label 'persn': did you mean 'person'?"),
        ({"person": ""}, "--map: person: : the label is empty; write null to drop it"),
        ({"person": False}, "--map: person: False: a label is text"),
        ({"car": ["a"]}, "--map: car: ['a']: a label is text; write one entry for each label of the model"),
        ({0: "human"}, "--map: 0: human: a label is text"),
        ({"person": "Human", "cat": "human"}, "--map: 'Human' and 'human' are one label in two spellings"),
        ({"person": "Cat"}, "--map: 'Cat' and 'cat' are one label in two spellings"),
        ({"default": None}, "--map: every label of the model is dropped"),
        ({"default": "thing"}, "--map: default: thing: only null can stand there"),
        ({"person": "a\x1b[2J"}, "--map: person: a\\u001b[2J: the label has control characters"),
        ({"person": "<script>"}, "--map: person: <script>: the label has < or >"),
        ({"person": " human"}, "--map: person:  human: the label begins or ends with a space"),
        ({"person": "x" * 201}, "the label has more than 200 characters"),
        ({str(number): "x" for number in range(50_001)}, "--map: 50,001 entries are more than 50,000"),
        (7, "--map: 7 is neither a mapping nor the path of a file"),
        ("no-such-file", "--map: 'no-such-file' cannot be read: No such file or directory"),
    ],
)
def test_what_is_refused(value: Any, message: str) -> None:
    assert message in refusal(value)


def test_merged_classes_take_the_greatest_value() -> None:
    values = np.array([[0.1, 0.2, 0.9, 0.4, 0.5]], np.float32)
    groups = parse_label_map({"truck": "car", "toaster": None}).resolve(VOCABULARY).groups
    assert merge_classes(values, groups).tolist() == np.float32([[0.1, 0.9, 0.5]]).tolist()
    assert merge_classes(values, None) is values

"""Files of label maps: what YAML makes of words, and errors that name the line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.labels.label_map import parse_label_map
from mlcls_ray.labels.label_map_file import read_entries

VOCABULARY = ("person", "car", "no", "café")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("person: human\n'no': ~\n", {"person": "human", "no": None}),
        ("# words\n---\nperson: 'null'\ncar: \"on\"\n...\n", {"person": "null", "car": "on"}),
        ("car: &vehicle vehicle\n", {"car": "vehicle"}),
        ("\ufeffcafé: Kaffee – heiß\n", {"café": "Kaffee – heiß"}),
        ("{person: human, car: null}", {"person": "human", "car": None}),
    ],
)
def test_yaml(tmp_path: Path, text: str, expected: dict[str, str | None]) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text, encoding="utf-8")
    assert parse_label_map(path).labels == expected


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{\n\t"person": "human",\n\t"no": null\n}')
    assert parse_label_map(path).labels == {"person": "human", "no": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person: human\nno: Nein\n", "line 2: YAML takes no for true or false; quote it: 'no'"),
        ("person: on\n", "line 1: YAML takes on for true or false; quote it: person: 'on'"),
        ("person: 3\n", "line 1: YAML takes 3 for a number; quote it: person: '3'"),
        ("person: 2026-01-02\n", "line 1: YAML takes 2026-01-02 for a date"),
        ("null: x\n", "line 1: YAML takes null for null; quote it: 'null'"),
        ("car: x\n\nperson:\n", "line 3: nothing stands behind 'person:'; write null to drop the label"),
        ("person: ''\n", "line 1: person: : the label is empty"),
        ("car: a\nperson: b\ncar: c\n", r"line 3: car: c: 'car' is mapped already \(.*map.yaml, line 1\)"),
        ("vehicle:\n  - car\n", "line 1: a label is text; write one line for each label of the model"),
        ("car: {a: b}\n", "line 1: a label is text"),
        ("car: &a vehicle\nno: *a\n", "line 2: a label is text"),
        ("car: !!python/object:os.system x\n", "line 1: YAML takes x for a number"),
        ("persn: human\n", "line 1: the model has no label 'persn': did you mean 'person'"),
        ("car: a\n---\ncar: b\n", "line 2: a second document begins"),
        ("- car\n", "is not a mapping from labels to labels"),
        ("", "is not a mapping from labels to labels"),
        ("*: null\n", "is not valid: .* write default: null for the labels that are not named"),
        ("[" * 100_000, "is not a mapping from labels to labels"),
        ("car: " + "[" * 100_000, "a label is text"),
        ("car: a\x00b\n", "is not valid"),
        ('car: "a\\u202eb"\n', "line 1: .*control characters"),
    ],
)
def test_errors_name_file_line_and_way_out(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"^--map: .*map.yaml.*{message}"):
        parse_label_map(str(path), "--map").resolve(VOCABULARY, field="--map")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"car": "a", "car": "b"}', "'car' is mapped already"),
        ('{"car": 1}', "car: 1: a label is text"),
        ('[["car", "b"]]', "is not a mapping"),
        ('{"car": {"a": "b"}}', "a label is text"),
        ("[" * 100_000, "is not valid"),
    ],
)
def test_json_errors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        parse_label_map(path)


def test_files_that_are_no_maps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_entries(str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not valid"):
        read_entries(str(tmp_path / "binary"))
    (tmp_path / "large").write_bytes(b"#" * 4_000_001)
    with pytest.raises(ValueError, match="more than 4,000,000 bytes"):
        read_entries(str(tmp_path / "large"))


def test_the_largest_vocabularies_take_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("".join(f"class {number}: name {number}\n" for number in range(30_000)))
    started = time.monotonic()
    resolved = parse_label_map(path).resolve([f"class {number}" for number in range(30_000)])
    assert len(resolved.labels) == 30_000
    assert time.monotonic() - started < 10

"""`mlcls relabel --map`: labels are renamed, merged and dropped, and come back; and what reads the table takes the new names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlcls_ray import open_labels
from mlcls_ray.datasets.annotations import dataset_of_table
from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.errors import UsageError
from mlcls_ray.explore.facts import gather_facts
from mlcls_ray.labels.label_map import LabelMap, parse_label_map
from mlcls_ray.labels.thresholds import Thresholds, parse_thresholds
from mlcls_ray.storage.store import Store
from mlcls_ray.table.corrections import Change, Verdict, as_rows, new_action, write_action
from mlcls_ray.table.export.formats import export
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.records import read_record
from mlcls_ray.table.relabel import relabel
from mlcls_ray.table.search import find_images
from mlcls_ray.table.verify import verify
from tests.conftest import run_cli
from tests.explore.browse.many import write_run

CLASSES = ("boat", "car", "dog", "truck")
URIS = [f"/photos/{number}.jpg" for number in range(4)]
SCORES = np.array(
    [[0.9, 0.6, 0.1, 0.8], [0.1, 0.7, 0.55, 0.2], [0.2, 0.3, 0.25, 0.1], [0.95, 0.1, 0.9, 0.51]], np.float32
)
MAP = parse_label_map({"car": "vehicle", "truck": "vehicle", "boat": None})
OLD = {"0": ["boat", "truck", "car"], "1": ["car", "dog"], "2": [], "3": ["boat", "dog", "truck"]}
NEW = {"0": ["vehicle"], "1": ["vehicle", "dog"], "2": [], "3": ["dog", "vehicle"]}


@pytest.fixture
def out(tmp_path: Path) -> str:
    folder = str(tmp_path / "out")
    write_run(folder, "one", URIS, classes=CLASSES, scores=SCORES)
    return folder


def labels(table: LabelTable) -> dict[str, list[str]]:
    rows = table.sql("SELECT uri, labels.labels FROM labels ORDER BY uri").fetchall()
    return {uri.removeprefix("/photos/").removesuffix(".jpg"): names for uri, names in rows}


def again(out: str, run_id: str, label_map: LabelMap | None = None, threshold: object = None) -> dict[str, list[str]]:
    relabel(Store(out), parse_thresholds(threshold), run_id=run_id, label_map=label_map)
    assert verify(Store(out), run_id) == []
    return labels(open_labels(out))


def test_a_map_is_applied_changed_and_taken_away(out: str) -> None:
    assert labels(open_labels(out)) == OLD
    assert again(out, "mapped", MAP) == NEW
    first = open_labels(out).sql("SELECT * FROM labels ORDER BY uri LIMIT 1").to_arrow_table().to_pylist()[0]
    assert (first["class_ids"], first["scores"]) == ([3], [pytest.approx(0.8)])
    record = read_record(Store(out), "mapped")
    assert record is not None
    assert record.label_map == {"boat": None, "car": "vehicle", "truck": "vehicle"}
    assert record.config["map"]["labels"] == record.label_map
    assert first["threshold_id"] == record.threshold_id == f"0.5+{record.resolved_map.id}"
    assert again(out, "kept", threshold={"car": 0.65}) == {**NEW, "0": ["vehicle"]}, "the map stays"
    assert again(out, "translated", parse_label_map({"dog": "Hund"}))["1"] == ["car", "Hund"]
    assert again(out, "plain", LabelMap(), threshold={"car": 0.5}) == OLD
    assert read_record(Store(out), "plain").threshold_id == "0.5"  # type: ignore[union-attr]


def test_a_map_and_back_gives_the_old_labels_where_rounding_would_not(tmp_path: Path) -> None:
    """Scores beside their threshold, of which float16 knows nothing; half of the labels are merged or dropped in between."""
    out, random = str(tmp_path / "out"), np.random.default_rng(0)
    scores = np.clip(0.5 + random.normal(scale=1e-4, size=(300, 4)), 0, 1).astype(np.float32)
    write_run(out, "one", [f"/{number}.jpg" for number in range(300)], classes=CLASSES, scores=scores)
    query = "SELECT uri, list_sort(labels) FROM labels ORDER BY uri"
    before = open_labels(out).sql(query).fetchall()
    again(out, "mapped", MAP)
    again(out, "other", parse_label_map({"car": "x", "dog": "x"}))
    again(out, "plain", LabelMap())
    assert open_labels(out).sql(query).fetchall() == before


def test_the_command(out: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("car: vehicle\ntruck: vehicle\nboat: null\n")
    assert "top labels: vehicle 3, dog 2" in run_cli("relabel", out, "--map", path).stdout
    assert "boat 2" in run_cli("relabel", out, "--map", "none", "--threshold", "0.5").stdout
    path.write_text("cra: vehicle\n")
    refused = run_cli("relabel", out, "--map", path, check=2).stderr
    assert f"map: {path}, line 1: the model has no label 'cra': did you mean 'car'?" in refused
    assert "give --threshold, --map, or both" in run_cli("relabel", out, check=2).stderr


def test_readers_take_the_new_names(out: str, tmp_path: Path) -> None:
    again(out, "mapped", MAP)
    table = open_labels(out)
    assert find_images(table.database, ["vehicle"], ["dog"], 0.0) == [("/photos/0.jpg", pytest.approx(0.8))]
    with pytest.raises(UsageError, match="no image has the label 'vehicel': did you mean 'vehicle'"):
        find_images(table.database, ["vehicel"], [], 0.0)
    scores = table.sql(
        "SELECT class, label, score FROM scores WHERE uri = '/photos/0.jpg' ORDER BY class_id"
    ).fetchall()
    assert [(name, label) for name, label, _ in scores] == [
        ("boat", None), ("car", "vehicle"), ("dog", "dog"), ("truck", "vehicle"),
    ]  # fmt: skip
    facts = gather_facts(table)
    assert [(label.name, label.images, label.threshold) for label in facts.labels] == [
        ("vehicle", 3, 0.5), ("dog", 2, 0.5),
    ]  # fmt: skip
    assert sum(facts.labels[0].scores) == 8, "the scores of both classes"
    assert export(table, "coco", tmp_path / "coco.json") == 4
    written = json.loads((tmp_path / "coco.json").read_text())
    assert written["categories"] == [{"id": 1, "name": "vehicle"}, {"id": 2, "name": "dog"}]
    assert [entry["category_id"] for entry in written["annotations"]] == [1, 1, 2, 2, 1]


def test_rows_of_two_maps_are_refused_where_one_vocabulary_is_needed(out: str, tmp_path: Path) -> None:
    again(out, "mapped", MAP)
    write_run(out, "night", ["/photos/new.jpg"], classes=CLASSES, scores=SCORES[:1])
    with pytest.raises(UsageError, match="labeled by 2 label maps: `mlcls relabel OUT --map FILE`"):
        export(open_labels(out), "csv", tmp_path / "labels.csv")
    assert export(open_labels(out, run_id="mapped"), "csv", tmp_path / "labels.csv") == 4


def test_data_sets_have_the_new_classes(tmp_path: Path) -> None:
    out, uris = str(tmp_path / "out"), [str(tmp_path / f"{number}.jpg") for number in range(4)]
    write_run(out, "one", uris, classes=CLASSES, scores=SCORES)
    again(out, "mapped", MAP)
    for is_soft, expected in (
        (False, [[1, 0], [1, 1], [0, 0], [1, 1]]),
        (True, [[0.8, 0.1], [0.7, 0.55], [0.3, 0.25], [0.51, 0.9]]),
    ):
        folder = tmp_path / f"soft {is_soft}"
        assert dataset_of_table(open_labels(out), None, is_soft, folder) == 4
        assert (folder / "label.txt").read_text() == "0 vehicle\n1 dog\n"
        assert read_dataset(folder / "train.txt", 2).targets == pytest.approx(np.array(expected), abs=1e-3)


def correct(out: str, place: int, run_id: str, before: list[str], after: list[str], number: int = 1) -> None:
    change = Change(URIS[place], f"of {URIS[place]}", run_id, Verdict.LABELED, before, after)
    action = new_action(number, "eva")
    write_action(Store(out), action, as_rows(action, [change]))


def test_corrections_of_both_vocabularies(out: str) -> None:
    correct(out, 0, "one", ["boat", "truck", "car"], ["boat", "truck"])
    correct(out, 1, "one", ["car", "dog"], ["dog"], 2)
    again(out, "mapped", MAP)
    correct(out, 2, "mapped", [], ["vehicle"], 3)
    table = open_labels(out, corrected=True)
    assert labels(table) == {**NEW, "0": ["vehicle"], "1": ["dog"], "2": ["vehicle"]}
    rows = table.sql("SELECT scores, class_ids FROM labels WHERE verdict IS NOT NULL ORDER BY uri").fetchall()
    assert rows[2] == ([pytest.approx(0.3, abs=1e-3)], [1]), "the score of the best class"
    relabel(Store(out), Thresholds(), run_id="plain", label_map=LabelMap())
    assert labels(open_labels(out, corrected=True)) == {**OLD, "0": ["boat", "truck"], "1": ["dog"], "2": ["vehicle"]}

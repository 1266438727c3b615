"""`mlcls export-labels`: each format is read back as its tool reads it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcls_ray import open_labels
from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.errors import UsageError
from mlcls_ray.job.label import label
from mlcls_ray.storage.uris import uri_of_path
from mlcls_ray.storage.whole import written_whole
from mlcls_ray.table.export.base import LabeledImage
from mlcls_ray.table.export.formats import FORMATS, export
from tests.conftest import quick_job, run_cli


@pytest.fixture(scope="module")
def expected(labeled: Path) -> dict[str, list[str]]:
    rows = open_labels(str(labeled), run_id="one").sql("SELECT uri, labels FROM labels WHERE status = 'ok'")
    return dict(rows.fetchall())


def saved(labeled: Path, kind: str, target: Path) -> Path:
    output = run_cli("export-labels", labeled, "--format", kind, "--save", target, "--run-id", "one").stdout
    assert output == f"{target}: 13 images\n"
    return target


def test_csv(labeled: Path, expected: dict[str, list[str]], tmp_path: Path) -> None:
    with saved(labeled, "csv", tmp_path / "deep/labels.csv").open(newline="") as stream:
        rows = {row["uri"]: row for row in csv.DictReader(stream)}
    assert {uri: row["labels"].split(";") if row["labels"] else [] for uri, row in rows.items()} == expected
    assert all(len(row["labels"].split(";")) == len(row["scores"].split(";")) for row in rows.values())


def test_coco(labeled: Path, expected: dict[str, list[str]], tmp_path: Path) -> None:
    data = json.loads(saved(labeled, "coco", tmp_path / "labels.json").read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    uris = {image["id"]: image["file_name"] for image in data["images"]}
    labels: dict[str, list[str]] = {uri: [] for uri in uris.values()}
    for annotation in data["annotations"]:
        labels[uris[annotation["image_id"]]].append(names[annotation["category_id"]])
        assert annotation["area"] == annotation["bbox"][2] * annotation["bbox"][3] > 0
    assert labels == expected
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


def test_paddleclas(labeled: Path, expected: dict[str, list[str]], tmp_path: Path) -> None:
    folder = saved(labeled, "paddleclas", tmp_path / "data")
    names = [line.split(" ", 1)[1] for line in (folder / "label.txt").read_text().splitlines()]
    data = read_dataset(folder / "labels.txt", 80)
    labels = {
        str(path): {names[place] for place in row.nonzero()[0]}
        for path, row in zip(data.paths, data.targets, strict=True)
    }
    assert labels == {uri: set(names) for uri, names in expected.items()}


def test_label_studio(labeled: Path, expected: dict[str, list[str]], tmp_path: Path) -> None:
    tasks = json.loads(saved(labeled, "labelstudio", tmp_path / "tasks.json").read_text())
    labels = {}
    for task in tasks:
        (prediction,) = task["predictions"]
        labels[task["data"]["uri"]] = [name for result in prediction["result"] for name in result["value"]["choices"]]
        assert task["data"]["image"].startswith("/data/local-files/?d=")
    assert labels == expected


def test_fiftyone(labeled: Path, expected: dict[str, list[str]], tmp_path: Path) -> None:
    folder = saved(labeled, "fiftyone", tmp_path / "data")
    data, labels = (json.loads((folder / name).read_text()) for name in ("data.json", "labels.json"))
    assert len(labels["classes"]) == 80
    assert {data[key]: [entry["label"] for entry in entries] for key, entries in labels["labels"].items()} == expected


@pytest.mark.usefixtures("loopback_ray")
def test_what_is_refused(labeled: Path, demo: Path, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert (
        "exists already"
        in run_cli("export-labels", labeled, "--format", "csv", "--save", tmp_path / "there", check=2).stderr
    )
    out = shutil.copytree(labeled, tmp_path / "out")
    label(quick_job(inputs=(str(demo / "cat.jpg"),), out=str(out), model=str(tiny_folder)))
    with pytest.raises(UsageError, match="2 vocabularies: choose one run"):
        export(open_labels(str(out)), "csv", tmp_path / "a.csv")


ODD = LabeledImage(uri_of_path(os.fsdecode(b"/photos/\xe9t\xe9 \xf0\x9f\x98\x80.jpg")), 4, 3, [0], ["cat"], [0.75])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_name_that_is_not_utf8(kind: str, tmp_path: Path) -> None:
    """It is written as its uri, which says the name's bytes."""
    assert FORMATS[kind]([ODD], ["cat"], tmp_path / "saved") == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("/photos/%E9t%E9%20" in path.read_text("utf-8") for path in files)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_fails_in_between_leaves_nothing(kind: str, tmp_path: Path) -> None:
    def images() -> Iterator[LabeledImage]:
        yield ODD
        raise RuntimeError("a fragment is damaged")

    with pytest.raises(RuntimeError), written_whole(tmp_path / "saved") as path:
        FORMATS[kind](images(), ["cat"], path)
    assert os.listdir(tmp_path) == []

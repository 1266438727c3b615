"""True labels in four formats: the same from each."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.datasets.ground_truth import Truth, read_truth
from mlcls_ray.errors import UsageError

VOCABULARY = ("cat", "dog", "bird")


def labels_by_name(truth: Truth) -> dict[str, list[str]]:
    return {
        Path(uri).name: [name for name, true in zip(VOCABULARY, row, strict=True) if true]
        for uri, row in zip(truth.uris, truth.targets, strict=True)
    }


EXPECTED = {"a.jpg": ["cat", "bird"], "b.jpg": [], "c.jpg": ["dog"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in EXPECTED:
        (tmp_path / "images" / name).touch()
    (tmp_path / "label.txt").write_text("0 bird\n1 cat\n2 dog\n")  # in another order than the model's
    (tmp_path / "list.txt").write_text("images/a.jpg\t1,1,0\nimages/b.jpg\t0,0,0\nimages/c.jpg\t0,0,1\n")
    (tmp_path / "labels.csv").write_text("uri,labels\nimages/a.jpg,cat;bird\nimages/b.jpg,\nimages/c.jpg,dog\n")
    rows = {"uri": [f"images/{name}" for name in EXPECTED], "labels": list(EXPECTED.values())}
    pq.write_table(
        pa.table(rows, schema=pa.schema([("uri", pa.string()), ("labels", pa.list_(pa.string()))])),
        tmp_path / "labels.parquet",
    )
    coco = {
        "images": [{"id": 7 + number, "file_name": name} for number, name in enumerate(EXPECTED)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "bird"}, {"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": category_id} for category_id in (1, 5, 5)]
        + [{"image_id": 9, "category_id": 18}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    return tmp_path


@pytest.mark.parametrize("name", ["list.txt", "labels.csv", "labels.parquet", "instances.json"])
def test_every_format_gives_the_same_labels(folder: Path, name: str) -> None:
    truth = read_truth(folder / name, VOCABULARY)
    assert labels_by_name(truth) == EXPECTED
    assert truth.uris[0] == str(folder / "images/a.jpg")
    assert truth.covered.all()
    assert truth.is_listed


@pytest.mark.parametrize("name", ["list.txt", "labels.csv", "labels.parquet", "instances.json"])
def test_a_truth_knows_the_classes_that_it_names(folder: Path, name: str) -> None:
    truth = read_truth(folder / name, ("cat", "lamp", "dog", "bird", "tree"))
    assert truth.covered.tolist() == [True, False, True, True, False]
    assert truth.targets[:, [1, 4]].sum() == 0


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_a_table_of_names_without_a_list_of_classes_covers_all(folder: Path, name: str) -> None:
    (folder / "label.txt").unlink()
    truth = read_truth(folder / name, ("cat", "lamp", "dog", "bird"))
    assert truth.covered.all()
    assert not truth.is_listed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "images/a.jpg\t1,0\n", "expected a path, a tab and 3 numbers"),
        ("x.csv", "uri,labels\na.jpg,cta\n", "unknown class 'cta': did you mean 'cat'"),
        ("x.csv", "name,labels\na.jpg,cat\n", "is not what its suffix says"),
        ("x.json", "{", "is not what its suffix says"),
        ("x.json", '{"images": []}', "is not what its suffix says"),
        ("x.parquet", "no table", "cannot be read"),
        ("x.csv", "uri,labels\n", "names no image"),
        ("x.xml", "", "expected a file that ends in .txt, .json, .csv, .parquet"),
    ],
)
def test_errors_name_the_problem(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        read_truth(folder / name, VOCABULARY)


def test_classes_that_the_model_lacks_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown class 'dog'"):
        read_truth(folder / "list.txt", ("cat", "bird"))

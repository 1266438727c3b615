"""`mlcls dataset` and `mlcls sample`: checks of a data set, stratified splits, and annotation by people."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlcls_ray import open_labels
from mlcls_ray.datasets.annotations import read_corrections, write_dataset
from mlcls_ray.datasets.check import check
from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.datasets.sample import farthest_first, sample
from mlcls_ray.datasets.split import split_dataset
from mlcls_ray.datasets.stratify import split_rows
from mlcls_ray.errors import UsageError
from tests.conftest import encode, picture, run_cli


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(8):
        (tmp_path / f"images/{number}.jpg").write_bytes(encode(picture(seed=number)))
    (tmp_path / "images/copy.jpg").write_bytes((tmp_path / "images/0.jpg").read_bytes())
    (tmp_path / "images/bad.jpg").write_text("no image")
    (tmp_path / "label.txt").write_text("0 cat\n1 dog\n2 bird\n")
    (tmp_path / "train.txt").write_text(
        "".join(f"images/{number}.jpg\t1,{number % 2},0\n" for number in range(6))
        + "images/6.jpg\t1,0\nimages/7.jpg 1,0,0\nimages/bad.jpg\t0,1,0\nimages/none.jpg\t0,1,0\nimages/5.jpg\t1,x,0\nimages/1.jpg\t1,1,0\n"
    )
    (tmp_path / "dev.txt").write_text("images/copy.jpg\t1,0,0\nimages/7.jpg\t0,1,2\n")
    return tmp_path


def test_every_problem_is_found(folder: Path) -> None:
    checked = check(folder)
    findings = {(finding.severity, finding.kind, finding.where) for finding in checked.findings}
    assert findings >= {
        ("error", "vector length", "train.txt:7"), ("error", "format", "train.txt:8"), ("error", "unreadable", "train.txt:9"),
        ("error", "unreadable", "train.txt:10"), ("error", "format", "train.txt:11"), ("warning", "twice in a split", "train.txt:12"),
        ("error", "in two splits", "dev.txt:1"), ("error", "format", "dev.txt:2"),
        ("warning", "empty class", "train.txt"), ("warning", "empty class", "dev.txt"),
    }  # fmt: skip
    assert checked.images == {"train": 9, "dev": 1}
    assert checked.counts["train"].tolist() == [7, 6, 0]


def test_the_check_command(folder: Path, tmp_path: Path) -> None:
    done = run_cli("dataset", "check", folder, "--html", tmp_path / "page.html", check=1)
    assert "error: dev.txt:1: in two splits: copy.jpg is the same image as 0.jpg in train.txt:1" in done.stdout
    assert "train 9, dev 1 usable images; 7 errors" in done.stderr
    assert "data:image/jpeg" in (tmp_path / "page.html").read_text()
    (first, *_) = run_cli("dataset", "check", folder, "--json", check=1).stdout.splitlines()
    assert json.loads(first)["severity"] == "error"
    (folder / "train.txt").unlink()
    (folder / "dev.txt").unlink()
    assert "has none of train.txt" in run_cli("dataset", "check", folder, check=2).stderr


def test_real_data_is_clean(shared_data: Path) -> None:
    checked = check(shared_data / "coco_mini")
    assert checked.errors == 0, [finding for finding in checked.findings if finding.severity == "error"]
    assert checked.images == {"train": 339, "dev": 167}


def deviation(targets: np.ndarray, parts: list[np.ndarray]) -> float:
    """Sum, over parts and classes, of the distance between a class's share in the part and in all rows, weighted by the part's size."""
    return float(sum(np.abs(targets[part].mean(axis=0) - targets.mean(axis=0)).sum() * len(part) for part in parts))


@pytest.mark.parametrize("seed", range(3))
def test_splits_are_stratified_and_seeded(seed: int) -> None:
    random = np.random.default_rng(seed)
    targets = random.random((400, 12)) < np.linspace(0.01, 0.6, 12)
    parts = split_rows(targets, [0.7, 0.2, 0.1], seed)
    assert sorted(np.concatenate(parts)) == list(range(400))
    assert [len(part) for part in parts] == pytest.approx([280, 80, 40], abs=6)
    rare = targets.sum(axis=0) <= 100
    for part, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert np.abs(targets[part].sum(axis=0) - share * targets.sum(axis=0))[rare].max() <= 1
    random_parts = np.split(random.permutation(400), [280, 360])
    assert deviation(targets, parts) < deviation(targets, random_parts) / 2
    again = split_rows(targets, [0.7, 0.2, 0.1], seed)
    assert [part.tolist() for part in again] == [part.tolist() for part in parts]


def test_split_writes_data_sets(folder: Path, tmp_path: Path) -> None:
    (folder / "all.txt").write_text("".join(f"images/{number}.jpg\t{number % 2},1,0.25\n" for number in range(8)))
    stdout = run_cli("dataset", "split", folder / "all.txt", "--out", tmp_path / "split", "--dev", "0.25").stdout
    assert "train.txt: 6 images" in stdout
    train, dev = (read_dataset(tmp_path / f"split/{name}.txt", 3) for name in ("train", "dev"))
    assert {*train.paths, *dev.paths} == {folder / f"images/{number}.jpg" for number in range(8)}
    assert train.targets[:, 0].sum() == 3
    assert set(train.targets[:, 2]) == {np.float32(0.25)}, "soft labels stay"
    with pytest.raises(UsageError, match="already"):
        split_dataset(folder / "all.txt", tmp_path / "split", 0.25, 0.0, 0)
    with pytest.raises(UsageError, match="leave 0 for training"):
        split_dataset(folder / "all.txt", tmp_path / "other", 0.5, 0.5, 0)


def test_farthest_first() -> None:
    points = np.array([[0, 0], [0.1, 0], [9, 0], [0, 9], [0.2, 0]], np.float32)
    assert {2, 3} <= set(farthest_first(points, 3))
    assert sorted(farthest_first(points, 99)) == list(range(5))
    assert farthest_first(points[:0], 3) == []


def test_strategies(labeled: Path) -> None:
    table = open_labels(str(labeled), run_id="one")
    random = [row.uri for row in sample(table, "random", 5)]
    assert len(set(random)) == 5
    assert [row.uri for row in sample(table, "random", 5)] == random
    assert len({row.uri for row in sample(table, "diverse", 13)}) == 13


def test_uncertain_takes_the_scores_nearest_to_their_thresholds(labeled: Path) -> None:
    """The same order as by a loop over all scores."""
    table = open_labels(str(labeled), run_id="one")
    thresholds = np.array(list(table.newest.thresholds.values()))
    distance = {}
    for uri, all_scores in table.sql("SELECT uri, all_scores FROM labels WHERE status = 'ok'").fetchall():
        logits, bounds = (
            np.log(np.maximum(x, 1e-4) / np.maximum(1 - x, 1e-4)) for x in (np.array(all_scores), thresholds)
        )
        distance[uri] = np.abs(logits - bounds).min()
    expected = sorted(distance, key=lambda uri: (distance[uri], uri))[:3]
    assert [row.uri for row in sample(table, "uncertain", 3)] == expected


def annotate(tasks: list[dict[str, Any]], labels: Sequence[list[str]]) -> None:
    """Add an old and a new annotation to the first tasks, as Label Studio exports them."""
    choice = {"from_name": "labels", "to_name": "image", "type": "choices"}
    for task, names in zip(tasks, labels, strict=False):
        older = {"updated_at": "2026-01-01", "result": [{**choice, "value": {"choices": ["zebra"]}}]}
        newer = {"updated_at": "2026-02-01", "result": [{**choice, "value": {"choices": names}}]}
        task["annotations"] = [newer, older]


def test_a_sample_is_annotated_and_becomes_a_data_set(labeled: Path, tmp_path: Path) -> None:
    uncertain = sample(open_labels(str(labeled), run_id="one"), "uncertain", 3)
    out = tmp_path / "next"
    stdout = run_cli("sample", labeled, "--run-id", "one", "--strategy", "uncertain", "--n", "3", "--out", out).stdout
    assert stdout == f"{out}: 3 images\n"
    assert sorted(path.name for path in out.iterdir()) == [
        "fiftyone", "images.csv", "labelstudio.json", "labelstudio.xml", "sheet.html",
    ]  # fmt: skip
    choices = ElementTree.parse(out / "labelstudio.xml").findall(".//Choice")
    assert len(choices) == 80
    tasks = json.loads((out / "labelstudio.json").read_text())
    assert [task["data"]["uri"] for task in tasks] == [row.uri for row in uncertain]
    annotate(tasks, (["cat"], ["cat", "dog"]))
    export = tmp_path / "export.json"
    export.write_text(json.dumps(tasks))
    labels = tmp_path / "label.txt"
    labels.write_text("".join(f"{choice.get('value')}\n" for choice in choices))
    stdout = run_cli("dataset", "from-labelstudio", export, "--labels", labels, "--out", tmp_path / "data").stdout
    assert "2 annotated images" in stdout
    data = read_dataset(tmp_path / "data/train.txt", 80)
    assert [str(path) for path in data.paths] == [row.uri for row in uncertain[:2]]
    assert data.targets.sum(axis=1).tolist() == [1, 2]
    assert check(tmp_path / "data").errors == 0
    with pytest.raises(UsageError, match="exists already"):
        write_dataset({"a.jpg": ["cat"]}, ["cat"], tmp_path / "data")


def test_corrections_in_the_minimal_format(tmp_path: Path) -> None:
    export = tmp_path / "export.json"
    tasks = [
        {"image": "/data/local-files/?d=photos/a.jpg", "labels": {"choices": ["cat", "dog"]}},
        {"image": "s3://b/c.jpg", "labels": "cat"},
        {"image": "s3://b/not-annotated.jpg"},
    ]
    export.write_text(json.dumps(tasks))
    assert read_corrections(export, ["cat", "dog"]) == {"/photos/a.jpg": ["cat", "dog"], "s3://b/c.jpg": ["cat"]}
    with pytest.raises(UsageError, match="unknown class 'dog'"):
        read_corrections(export, ["cat", "dogs"])
    export.write_text('{"a": 1}')
    with pytest.raises(UsageError, match="is not an export of Label Studio"):
        read_corrections(export, ["cat"])

"""`mlcls evaluate` and `mlcls calibrate` over a label table, comparison with scikit-learn and with values counted by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score

from mlcls_ray import open_labels
from mlcls_ray.cli.train import calibrate
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.calibration import Target
from mlcls_ray.labels.label_map import parse_label_map
from mlcls_ray.labels.thresholds import Thresholds
from mlcls_ray.storage.store import Store
from mlcls_ray.table.relabel import relabel
from mlcls_ray.train.evaluate import (
    class_notes,
    compare,
    confusions,
    evaluate,
    evaluation_page,
    rare_names,
    worst_images,
    write_thresholds,
)
from tests.conftest import run_cli
from tests.explore.browse.many import write_run

TRUE = {
    "astronaut.jpg": "person", "grace-hopper.jpg": "person;tie", "photographer.jpg": "person", "boats.jpg": "boat", "cat.jpg": "cat",
    "walking-cat.jpg": "cat", "coffee.jpg": "cup;spoon;dining table", "sheep.jpg": "sheep", "airplane-from-above.jpg": "airplane",
    "flowers.jpg": "", "alpine-landscape.jpg": "", "rocket.jpg": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def truth(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("truth") / "truth.csv"
    path.write_text("uri,labels\n" + "".join(f"{demo / name},{labels}\n" for name, labels in TRUE.items()))
    return path


@pytest.fixture(scope="module")
def out(loopback_ray: None, truth: Path) -> Path:
    folder = truth.parent / "evaluated"
    stdout = run_cli("evaluate", "--model", "starter", "--data", truth, "--out", folder).stdout
    assert "12 images, 0 without scores" in stdout
    return folder


def test_the_metrics_are_those_of_scikit_learn(out: Path, truth: Path) -> None:
    comparison = compare(open_labels(str(out / "table")), truth)
    result = evaluate(comparison)
    written = json.loads((out / "evaluation.json").read_text())
    assert written == json.loads(result.model_dump_json())
    used = comparison.targets.any(axis=0)
    expected = average_precision_score(comparison.targets[:, used], comparison.scores[:, used], average="macro")
    assert result.mean_average_precision == pytest.approx(expected, abs=1e-4)
    hits = (comparison.predicted & comparison.targets).sum()
    assert result.overall_precision == pytest.approx(hits / comparison.predicted.sum(), abs=1e-4)
    classes = {entry.name: entry for entry in result.classes}
    assert (classes["person"].positives, classes["zebra"].positives) == (3, 0)
    assert classes["zebra"].average_precision is None
    wrong = [confusion.given for confusion in confusions(comparison) if confusion.missed == "airplane"]
    assert wrong == ["person"], "the biplane from above, as in the README"
    assert {Path(image.uri).name for image in worst_images(comparison, 3)} & {
        "airplane-from-above.jpg",
        "walking-cat.jpg",
    }
    page = (out / "evaluation.html").read_text()
    assert page.count("data:image/jpeg") == 12


def test_calibrated_thresholds_reach_their_target(out: Path, truth: Path, tmp_path: Path) -> None:
    table = out / "table"
    stdout = run_cli(
        "calibrate", "--table", table, "--data", truth, "--save", tmp_path / "t.yaml", "--target", "recall=0.9"
    ).stdout
    assert "80 thresholds from 12 images" in stdout
    loaded = yaml.safe_load((tmp_path / "t.yaml").read_text())
    assert (loaded["version"], loaded["target"], len(loaded["classes"])) == (1, "recall=0.9", 80)
    run_cli("relabel", table, "--threshold", tmp_path / "t.yaml", "--run-id", "calibrated")
    record = json.loads((table / "runs/calibrated/run.json").read_text())
    assert record["thresholds"]["person"] == pytest.approx(np.float32(loaded["classes"]["person"]))
    comparison = compare(open_labels(str(table)), truth)
    assert (comparison.predicted & comparison.targets).sum() / comparison.targets.sum() >= 0.9
    (tmp_path / "t.yaml").write_text("version: 7\nclasses: {}\n")
    assert "is of version 7" in run_cli("relabel", table, "--threshold", tmp_path / "t.yaml", check=2).stderr


def test_errors_name_what_is_missing(out: Path, truth: Path, tmp_path: Path) -> None:
    assert (
        "give the output folder of `mlcls label`, or --model"
        in run_cli("evaluate", "--data", truth, "--out", tmp_path, check=2).stderr
    )
    (tmp_path / "other.csv").write_text("uri,labels\n/elsewhere.jpg,cat\n")
    with pytest.raises(UsageError, match="has scores of none of the 1 images"):
        compare(open_labels(str(out / "table")), tmp_path / "other.csv")


def test_a_truth_of_fewer_classes_measures_those_only(out: Path, truth: Path, tmp_path: Path) -> None:
    """The other classes of the model are left out of all numbers, and named."""
    table = open_labels(str(out / "table"))
    (tmp_path / "label.txt").write_text("cat\nboat\nperson\n")
    lines = (line.rpartition(",") for line in truth.read_text().splitlines()[1:])
    rows = [f"{uri},{';'.join(sorted({'cat', 'boat', 'person'} & set(labels.split(';'))))}" for uri, _, labels in lines]
    (tmp_path / "three.csv").write_text("\n".join(["uri,labels", *rows]) + "\n")
    everything, three = compare(table, truth), compare(table, tmp_path / "three.csv")
    assert three.classes == ["person", "boat", "cat"], "in the order of the model"
    places = [everything.classes.index(name) for name in three.classes]
    np.testing.assert_array_equal(three.scores, everything.scores[:, places])
    np.testing.assert_array_equal(three.targets, everything.targets[:, places])
    result = evaluate(three)
    assert (result.left_out, len(result.classes)) == (77, 3)
    assert result.overall_precision > evaluate(everything).overall_precision
    (left_out,) = class_notes(three)
    assert left_out.startswith(
        "77 of the model's 80 classes are not among those of the truth, and left out: bicycle, car,"
    )
    assert left_out.endswith("and 72 more")
    assert left_out in evaluation_page(table, three, result).replace("&#39;", "'")
    (tmp_path / "label.txt").unlink()
    (never_true,) = class_notes(compare(table, tmp_path / "three.csv"))
    assert never_true.startswith(
        "77 of the model's 80 classes are on no image of the truth; labels of them count as wrong"
    )
    (tmp_path / "label.txt").write_text("cat\ndragon\n")
    assert compare(table, tmp_path / "three.csv").classes == ["person", "boat", "cat"], "names in the file count too"


def test_rare_classes_are_named(out: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = compare(open_labels(str(out / "table")), truth)
    assert rare_names(comparison) == comparison.classes, "no class is on five of the twelve photographs"
    calibrate(str(out / "table"), data=truth, save=tmp_path / "t.yaml")
    assert re.search(
        r"80 of 80 classes have fewer than 5 true images and get the threshold of all classes together, 0\.\d+: person, ",
        capsys.readouterr().out,
    )
    assert yaml.safe_load((tmp_path / "t.yaml").read_text())["common_threshold"] == comparison.classes


MAPPED = {"car": "vehicle", "truck": "vehicle", "boat": None}


@pytest.fixture
def mapped(tmp_path: Path) -> str:
    """Four images of the classes boat, car, dog and truck, labeled by a map."""
    out = str(tmp_path / "out")
    scores = np.float32([[0.9, 0.6, 0.1, 0.8], [0.1, 0.7, 0.55, 0.2], [0.2, 0.3, 0.25, 0.1], [0.95, 0.1, 0.9, 0.51]])
    write_run(
        out, "one", [f"/{number}.jpg" for number in range(4)], classes=("boat", "car", "dog", "truck"), scores=scores
    )
    relabel(Store(out), Thresholds(), run_id="mapped", label_map=parse_label_map(MAPPED))
    return out


def test_a_truth_in_new_words_or_in_those_of_the_model(mapped: str, tmp_path: Path) -> None:
    new, old = tmp_path / "new.csv", tmp_path / "old.csv"
    new.write_text("uri,labels\n/0.jpg,vehicle\n/1.jpg,vehicle;dog\n/2.jpg,vehicle\n/3.jpg,dog\n")
    old.write_text("uri,labels\n/0.jpg,truck;boat\n/1.jpg,car;dog\n/2.jpg,car;truck\n/3.jpg,boat;dog\n")
    for path in (new, old):
        comparison = compare(open_labels(mapped), path)
        assert comparison.classes == ["vehicle", "dog"]
        assert comparison.scores == pytest.approx(
            np.array([[0.8, 0.1], [0.7, 0.55], [0.3, 0.25], [0.51, 0.9]]), abs=1e-3
        )
        assert comparison.predicted.tolist() == [[True, False], [True, True], [False, False], [True, True]]
        assert comparison.targets.tolist() == [[True, False], [True, True], [True, False], [False, True]]
    old.write_text("uri,labels\n/0.jpg,trcuk\n")
    with pytest.raises(UsageError, match="unknown class 'trcuk': did you mean 'truck'"):
        compare(open_labels(mapped), old)
    (tmp_path / "label.txt").write_text("car\ndog\n")
    old.write_text("uri,labels\n/1.jpg,car;dog\n")
    assert compare(open_labels(mapped), old).classes == ["dog"], "of the vehicles the truth knows only one kind"


def test_the_threshold_of_a_merged_label_is_that_of_its_classes(mapped: str, tmp_path: Path) -> None:
    truth, file = tmp_path / "truth.csv", tmp_path / "t.yaml"
    truth.write_text("uri,labels\n/0.jpg,vehicle\n/1.jpg,vehicle;dog\n/2.jpg,\n/3.jpg,dog\n")
    table = open_labels(mapped)
    write_thresholds(compare(table, truth), Target("f1"), file, table.newest)
    classes = yaml.safe_load(file.read_text())["classes"]
    assert list(classes) == ["car", "dog", "truck"]
    assert classes["car"] == classes["truck"]

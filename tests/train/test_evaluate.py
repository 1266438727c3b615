"""`mlcls evaluate` and `mlcls calibrate` over a label table, comparison with scikit-learn and with values counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score

from mlcls_ray import open_labels
from mlcls_ray.errors import UsageError
from mlcls_ray.train.evaluate import compare, confusions, evaluate, worst_images
from tests.conftest import run_cli

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
def out(truth: Path) -> Path:
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

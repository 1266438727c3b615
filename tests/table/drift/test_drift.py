"""`mlcls drift`: the counts against numpy, the verdict, and which runs are compared."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.errors import DRIFT_EXIT_CODE, UsageError
from mlcls_ray.labels.stability import psi
from mlcls_ray.labels.thresholds import Thresholds
from mlcls_ray.storage.store import Store
from mlcls_ray.table.drift.options import DriftOptions
from mlcls_ray.table.drift.report import DriftReport, find_drift
from mlcls_ray.table.relabel import relabel
from tests.conftest import ROOT, run_cli
from tests.explore.browse.many import write_run
from tests.table.drift.nights import CLASSES, usual_scores, write_night
from tests.table.outputs import begin_run

BEFORE = [usual_scores(700, seed) for seed in range(3)]
NOW = usual_scores(800, 9)
MOVED = NOW.copy()
MOVED[:, 1] = MOVED[:, 1] ** 0.2
"""Most images have a cat."""


@pytest.fixture
def out(tmp_path: Path) -> str:
    """Three nights."""
    folder = str(tmp_path / "out")
    for number, scores in enumerate(BEFORE):
        write_night(folder, f"night-{number}", scores)
    return folder


def drift(out: str, **options: object) -> DriftReport:
    return find_drift(Store(out), DriftOptions.model_validate(options))


def histogram(scores: np.ndarray) -> list[int]:
    return [
        *np.histogram(scores.astype(np.float16).astype(np.float32), bins=np.arange(11, dtype=np.float32) / 10)[0],
        0,
    ]


def test_the_counts_are_those_of_numpy(out: str) -> None:
    write_night(out, "now", NOW)
    report = drift(out)
    assert (report.run_id, report.against) == ("now", ("night-0", "night-1", "night-2"))
    assert (report.images_before, report.images_now) == (2100, 800)
    before = np.concatenate(BEFORE)
    shifts = {label.name: label for label in report.labels}
    for class_id, name in enumerate(CLASSES):
        label = shifts[name]
        assert (label.before, label.now) == ((before[:, class_id] > 0.5).sum(), (NOW[:, class_id] > 0.5).sum())
        assert label.share_now == label.now / 800
        assert label.scores is not None
        # a score on the edge of two bins is a matter of the last bit
        assert np.abs(np.subtract(label.scores.now, histogram(NOW[:, class_id]))).max() <= 2
        assert label.psi == pytest.approx(psi(label.scores.before, label.scores.now))
    assert report.labels_per_image is not None
    numbers = np.bincount((NOW > 0.5).sum(1), minlength=6)
    assert list(report.labels_per_image.now) == numbers.tolist()
    assert (report.verdict, report.moved) == ("stable", [])
    assert [run.unlabeled for run in report.runs] == [int((~(one > 0.5).any(1)).sum()) for one in (*BEFORE, NOW)]
    assert [run.megapixels for run in report.runs] == pytest.approx([0.3072] * 4)


def test_a_label_that_moved(out: str) -> None:
    write_night(out, "now", MOVED)
    report = drift(out)
    assert report.verdict == "drift"
    assert [label.name for label in report.moved] == ["cat"]
    assert report.labels[0].name == "cat"
    assert report.sentence.startswith("run now: the scores of 1 label moved: cat (PSI ")
    assert drift(out, threshold_psi=20).moved == []
    done = run_cli("drift", out, check=DRIFT_EXIT_CODE)
    assert done.stdout.splitlines()[-1] == report.sentence
    assert done.stdout.splitlines()[1].endswith("moved")
    printed = run_cli("drift", out, "--json", check=DRIFT_EXIT_CODE).stdout
    assert DriftReport.model_validate_json(printed) == report
    assert run_cli("drift", out, "--run-id", "night-2").stdout.splitlines()[-1].startswith("run night-2: nothing moved")


def test_a_label_map_is_no_drift(out: str) -> None:
    """The model's own classes are counted, whatever their labels are called."""
    label_map = {"boat": None, "cat": "pet", "dog": "pet"}
    write_night(out, "now", NOW, label_map=label_map, threshold_id="0.5+map-1")
    report = drift(out)
    assert (report.verdict, report.notes) == ("stable", ())
    shifts = {label.name: label for label in report.labels}
    for class_id, name in enumerate(CLASSES):
        # of merged classes the labels' own scores are those of the best one: the others are rounded
        assert abs(shifts[name].now - (NOW[:, class_id] > 0.5).sum()) <= 2


def test_labels_are_counted_at_the_thresholds_of_the_run(out: str, tmp_path: Path) -> None:
    for threshold in (0.3, 0.7):
        copy = str(shutil.copytree(out, tmp_path / f"at {threshold}"))
        write_night(copy, "now", NOW, threshold=threshold)
        report = drift(copy)
        before = np.concatenate(BEFORE).astype(np.float16 if threshold < 0.5 else np.float32)
        for label in report.labels:
            class_id = CLASSES.index(label.name)
            assert label.before == (before[:, class_id] > np.float32(threshold)).sum()
            assert label.now == (NOW[:, class_id] > np.float32(threshold)).sum()
        assert report.notes == ("thresholds changed (boat, cat, dog and 1 more): labels are counted at those of now",)
        assert report.verdict == "stable"


def test_errors_that_became_more(out: str) -> None:
    write_night(out, "few", NOW, failed=("timeout",) * 4)
    assert drift(out).verdict == "stable"
    write_night(out, "again", NOW, failed=("timeout",) * 80, attempts=2)
    assert drift(out).verdict == "stable", "these had failed before"
    write_night(out, "many", NOW, failed=("timeout",) * 80 + ("corrupt",) * 5)
    report = drift(out)
    assert report.verdict == "drift"
    assert [status.name for status in report.statuses if status.rose] == ["timeout"]
    assert "'timeout' rose from 0.1% to 9.0%" in report.sentence
    (timeouts, corrupt) = report.errors
    assert (timeouts.message, timeouts.before, timeouts.now) == ("… at byte N", 4, 80)
    assert (corrupt.status, corrupt.now) == ("corrupt", 5)
    assert drift(out, threshold_status=0.5).verdict == "stable"
    write_night(out, "none", NOW[:0], failed=("denied",) * 200)
    report = drift(out)
    assert (report.images_now, report.verdict) == (0, "drift"), "no image was labeled, and that is what is to be said"
    assert report.labels_per_image is None
    assert all(label.scores is None for label in report.labels)
    assert "'denied' rose from 0.0% to 100.0%" in run_cli("drift", out, check=DRIFT_EXIT_CODE).stdout


def test_too_little_to_tell(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    write_night(out, "first", MOVED[:50])
    assert run_cli("drift", out).stdout.splitlines()[-1] == "run first: there is no earlier run to compare it with"
    write_night(out, "second", NOW)
    report = drift(out)
    assert (report.verdict, report.moved) == ("unknown", [])
    assert report.sentence == (
        "run second: too few images to tell: 800 labeled images against 50 of 1 run, and both sides need 100"
    )
    assert drift(out, min_images=50).verdict == "drift"
    begin_run(Store(out), "not committed")
    assert drift(out).run_id == "second"


def test_which_runs_are_compared(out: str) -> None:
    store = Store(out)
    write_night(out, "other model", MOVED, model="n", model_fingerprint="g")
    write_night(out, "other preprocessing", MOVED, preprocess_fingerprint="q")
    write_night(out, "few scores", MOVED, config={"all_scores": "none"})
    write_night(out, "vanished only", NOW[:0])
    write_night(out, "now", NOW)
    relabel(store, Thresholds(default=0.4), source="now", run_id="relabeled")
    report = drift(out)
    assert (report.run_id, report.against) == ("now", ("night-0", "night-1", "night-2"))
    assert {run.run_id: run.reason for run in report.left_out} == {
        "other model": "is of another model (n)",
        "other preprocessing": "prepared its images in another way",
        "few scores": "kept other scores (all_scores: none)",
    }
    assert drift(out, against="2").against == ("night-1", "night-2")
    assert drift(out, against="night-0").against == ("night-0",)
    assert drift(out, run_id="night-0", against="night-2").against == ("night-2",), "which is later"
    assert drift(out, against="2020-01-01").against == ("night-0", "night-1", "night-2")
    today = datetime.now(timezone.utc).date()
    assert drift(out, against=str(today.replace(year=today.year + 1, day=1))).verdict == "unknown"
    for options, message in (
        ({"run_id": "nw"}, "no committed run 'nw': did you mean 'now'"),
        ({"run_id": "relabeled"}, "was relabeled"),
        ({"run_id": "vanished only"}, "has no rows"),
        ({"against": "other model"}, "is of another model"),
        ({"against": "now"}, "is the run itself"),
        ({"against": "yesterday"}, "neither a number of runs, nor a date"),
        ({"against": "0"}, "neither a number of runs, nor a date"),
    ):
        with pytest.raises(UsageError, match=message):
            drift(out, **options)


def test_wrong_use(out: str, tmp_path: Path) -> None:
    assert "threshold_psi" in run_cli("drift", out, "--threshold-psi", "0", check=2).stderr
    assert "no committed run" in run_cli("drift", tmp_path / "nothing", check=2).stderr
    assert f"did you mean '{out}'" in run_cli("drift", tmp_path, check=2).stderr, "as of a job of several models"
    (tmp_path / "file").touch()
    assert "cannot be written" in run_cli("drift", out, "--html", tmp_path / "file/page.html", check=2).stderr
    relabeled = str(tmp_path / "relabeled")
    write_night(relabeled, "empty", NOW[:0])
    assert "holds no run that labeled an image" in run_cli("drift", relabeled, check=2).stderr


@pytest.mark.parametrize("config", [{"all_scores": "none"}, {"all_scores": "top_k", "top_k": 2}])
def test_scores_that_were_not_kept(tmp_path: Path, config: dict[str, object]) -> None:
    out = str(tmp_path / "out")
    write_night(out, "first", BEFORE[0], config=config)
    write_night(out, "second", NOW, config=config)
    assert drift(out).verdict == "stable"
    write_night(out, "third", MOVED, config=config, threshold=0.6)
    report = drift(out)
    assert "cat" in [label.name for label in report.moved]
    cat = next(label for label in report.labels if label.name == "cat")
    assert cat.scores is not None
    if config["all_scores"] == "none":
        assert cat.scores.now == (cat.now, 800 - cat.now)
        assert "labels are as each run gave them" in report.notes[0]
    else:
        assert sum(cat.scores.now) == 800
        assert cat.scores.before[-1] > cat.scores.now[-1], "it is among the two highest scores more often now"


def test_very_large_runs_are_read_in_part(out: str) -> None:
    write_night(out, "now", MOVED)
    report = find_drift(Store(out), most_images=1000)
    assert report.is_sampled
    assert (report.images_before, report.images_now) == (900, 800), "the first of three files of each run"
    assert [label.name for label in report.moved] == ["cat"]


def test_an_output_of_an_earlier_version(tmp_path: Path) -> None:
    out = shutil.copytree(ROOT / "tests/fixtures/output_before_redesign/out", tmp_path / "out")
    report = drift(str(out), min_images=1)
    assert (report.run_id, report.against) == ("second", ("first",))
    assert report.images_now + report.images_before == 6
    assert all(label.scores and sum(label.scores.now) == report.images_now for label in report.labels)
    assert json.loads(report.model_dump_json())["runs"][0]["run_id"] == "first"


MEASURE = """
import resource, sys, time
from mlcls_ray.storage.store import Store
from mlcls_ray.table.drift.report import find_drift
before = resource.getrusage(resource.RUSAGE_SELF)
report = find_drift(Store(sys.argv[1]))
after = resource.getrusage(resource.RUSAGE_SELF)
print(report.verdict, report.images_before, report.images_now, after.ru_utime - before.ru_utime, after.ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path) -> None:
    """80 classes: seconds of two cores, and the memory that DuckDB may take."""
    out = str(tmp_path / "out")
    for seed, (run_id, count) in enumerate({"one": 600_000, "two": 300_000, "three": 100_000}.items()):
        write_run(out, run_id, [f"/photos/{run_id}/{number:08d}.jpg" for number in range(count)], seed=10 * seed)
    script = tmp_path / "measure.py"  # in `python -c` DuckDB sees a person, and shows a progress bar
    script.write_text(MEASURE)
    done = subprocess.run([sys.executable, script, out], capture_output=True, text=True, check=True)
    verdict, before, now, cpu_s, megabytes = done.stdout.split()
    print(f"{float(cpu_s):.1f} s of CPU, {megabytes} MB")
    assert (verdict, before, now) == ("stable", "899100", "99900")
    assert float(cpu_s) < 30
    assert int(megabytes) < 1500

"""An output that was written before the redesign is read as before. See tests/fixtures/output_before_redesign/SOURCE.md."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from mlcls_ray import open_labels
from mlcls_ray.config import Thresholds
from mlcls_ray.explore.report import make_report
from mlcls_ray.job.label import label
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.incremental import open_changes
from mlcls_ray.table.records import read_record
from mlcls_ray.table.relabel import relabel
from mlcls_ray.table.status import run_status
from mlcls_ray.table.verify import verify
from tests.conftest import ROOT, quick_job

FIXTURE = ROOT / "tests/fixtures/output_before_redesign"
PLACE = Path("/tmp/mlcls-output-before-redesign")
"""Where the images were when they were labeled: their uris say so."""
MTIME_NS = 1_790_000_000_123_456_000


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A copy: tests may write into it."""
    return Path(shutil.copytree(FIXTURE / "out", tmp_path / "out"))


def test_open_labels(out: Path) -> None:
    table = open_labels(str(out))
    assert len(table.all_rows()) == 7
    assert dict(table.sql("SELECT status, count(*) FROM labels GROUP BY 1").fetchall()) == {"ok": 6, "not_an_image": 1}
    assert table.newest.run_id == "second"
    assert len(table.sql("FROM scores")) == 6 * 4
    uris = table.sql("SELECT uri FROM labels WHERE list_contains(labels, 'cat')").fetchall()
    assert uris == [(f"{PLACE}/images/rocket.jpg",)]


def test_the_record_of_a_run(out: Path) -> None:
    record = read_record(Store(str(out)), "first")
    assert record is not None
    assert (record.engine.engine, record.engine.precision) == ("openvino", "fp32")
    assert [trial.engine for trial in record.engine.trials] == [
        "paddle",
        "paddle",
        "openvino",
        "openvino",
        "onnxruntime",
    ]
    written = record.model_dump(mode="json")
    assert "engine" in written
    assert "choice" not in written
    assert type(record).model_validate(written) == record, "what is written now is read too"


def test_verify_and_status(out: Path) -> None:
    store = Store(str(out))
    assert verify(store) == []
    status = run_status(store, "first")
    assert status is not None
    assert (status.state, status.rows, status.done) == ("committed", 5, 5)


def test_report(out: Path) -> None:
    page = make_report(open_labels(str(out)))
    assert "not_an_image" in page
    assert "rocket.jpg" in page


def test_relabel(out: Path) -> None:
    store = Store(str(out))
    success = relabel(store, Thresholds(default=0.9), run_id="third")
    assert success.statuses == {"ok": 6, "not_an_image": 1}
    assert verify(store) == []
    rows = pq.read_table(out / layout.labels_folder("third")).to_pylist()
    for row in rows:
        if row["status"] == "ok":
            assert set(row["class_ids"]) == set(np.flatnonzero(np.array(row["all_scores"], np.float32) > 0.9))
    relabel(store, Thresholds(), source="first", run_id="fourth")
    first, fourth = (pq.read_table(out / layout.labels_folder(run)).sort_by("uri") for run in ("first", "fourth"))
    assert fourth["labels"].equals(first["labels"])
    assert fourth["scores"].equals(first["scores"])


def test_an_incremental_plan(out: Path) -> None:
    """The old manifest serves as today's listing: one input has changed, one is new, one has vanished."""
    store = Store(str(out))
    record = read_record(store, "first")
    assert record is not None
    listed = [
        InputEntry(row["uri"], row["size_bytes"], row["mtime"], row["etag"])
        for run in ("first", "second")
        for row in pq.read_table(out / layout.manifest_folder(run)).to_pylist()
    ]
    same = [entry for entry in listed if not entry.uri.endswith("boats.jpg")]
    changed = same[0]._replace(size_bytes=1)
    new = InputEntry("/new.jpg", 5)
    fingerprints = (record.model_fingerprint, record.preprocess_fingerprint)
    inputs = record.config["inputs"]
    with open_changes(store, fingerprints, inputs, same) as changes:
        assert list(changes.new()) == []
        assert changes.vanished().num_rows == 0, "the second run has recorded it already"
    with open_changes(store, fingerprints, inputs, [changed, new, *same[2:]]) as changes:
        assert list(changes.new()) == [changed, new]
        assert changes.reasons == {"changed": 1, "new": 1}
        assert changes.vanished()["uri"].to_pylist() == [same[1].uri]
    with open_changes(store, ("another model", fingerprints[1]), inputs, same) as changes:
        assert sorted(entry.uri for entry in changes.new()) == sorted(entry.uri for entry in same)
        assert changes.reasons == {"other_model": len(same)}


@pytest.fixture
def place() -> Iterator[Path]:
    """The images and the model where they were, with the images' old time of change."""
    with FileLock(f"{PLACE}.lock"):
        shutil.rmtree(PLACE, ignore_errors=True)
        shutil.copytree(FIXTURE, PLACE)
        for image in (PLACE / "images").iterdir():
            os.utime(image, ns=(MTIME_NS, MTIME_NS))
        yield PLACE
        shutil.rmtree(PLACE)


def test_the_next_night(loopback_ray: None, place: Path) -> None:
    """An incremental job over the old output: its images have other pixels today; then nothing to do, and then one new image."""
    job = quick_job(
        inputs=(str(place / "images"),), out=str(place / "out"), model=str(place / "model"), incremental=True
    )
    assert label(job, run_id="decoded_anew").rows == 6
    assert label(job).rows == 0
    assert sorted(path.name for path in (place / "out/runs").iterdir()) == ["decoded_anew", "first", "second"]
    shutil.copyfile(place / "images/cat.jpg", place / "images/another.jpg")
    assert label(job, run_id="third").rows == 1
    table = open_labels(str(place / "out"), run_id="third")
    assert table.sql("SELECT parse_filename(uri), status FROM labels").fetchall() == [("another.jpg", "ok")]
    assert verify(Store(str(place / "out"))) == []

"""`mlcls relabel`: the same thresholds give the same labels, other ones other labels, and the result is a run like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlcls_ray import open_labels
from mlcls_ray.config import Thresholds
from mlcls_ray.errors import UsageError
from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.records import read_record
from mlcls_ray.table.relabel import relabel
from mlcls_ray.table.verify import verify
from tests.conftest import encode, picture, quick_job, run_cli

pytestmark = pytest.mark.usefixtures("loopback_ray")


def table(out: Path, run_id: str) -> list[dict[str, object]]:
    return pq.read_table(out / layout.labels_folder(run_id)).sort_by("uri").to_pylist()


@pytest.fixture(scope="module")
def labeled_once(
    loopback_ray: None, demo: Path, folder_of_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("relabeled") / "out"
    label(
        quick_job(
            inputs=(str(demo), str(folder_of_images)),
            out=str(folder),
            run_id="first",
        )
    )
    return folder


@pytest.fixture
def out(labeled_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(labeled_once, tmp_path / "out"))


def test_the_same_thresholds_give_the_same_labels(out: Path) -> None:
    """Scores are rounded to float16: 0.2999 may have become 0.3001 there."""
    store = Store(str(out))
    record = read_record(store, "first")
    assert record is not None
    # The thresholds lie where rounding to float16 moves a score over them.
    success = relabel(store, Thresholds(classes=record.thresholds), run_id="again")
    for before, after in zip(table(out, "first"), table(out, "again"), strict=True):
        compared = before.keys() - {"row_id", "run_id", "run_number", "labeled_at"}
        assert {key: after[key] for key in compared} == {key: before[key] for key in compared}
    assert success.statuses == {"ok": 37, "corrupt": 1, "empty": 1, "missing": 1, "not_an_image": 1, "unsupported": 1}
    assert verify(store) == []
    again = read_record(store, "again")
    assert again is not None
    assert (again.relabeled_from, again.threshold_id, again.rows) == (("first",), record.threshold_id, 42)


def test_other_thresholds_select_other_labels(out: Path) -> None:
    output = run_cli("relabel", out, "--threshold", "0.1,person=0.95", "--run-id", "low").stdout
    assert "42 images" in output
    for before, after in zip(table(out, "first"), table(out, "low"), strict=True):
        if before["status"] != "ok":
            assert after["labels"] is None
            continue
        scores = np.array(before["all_scores"], np.float32)
        expected = {number for number, score in enumerate(scores) if score > (0.95 if number == 0 else 0.1)}
        assert set(after["class_ids"]) == expected  # type: ignore[call-overload]
        assert after["scores"] == sorted(after["scores"], reverse=True)  # type: ignore[call-overload]
    labels = open_labels(str(out)).sql("SELECT DISTINCT run_id FROM labels").fetchall()
    assert labels == [("low",)], "the new labels are the newest ones"


def test_the_newest_rows_of_several_runs_and_what_follows(tiny_folder: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    job = quick_job(inputs=(str(images),), out=str(out), model=str(tiny_folder), incremental=True)
    for night, name in enumerate(("a.jpg", "b.jpg", "a.jpg")):
        (images / name).write_bytes(encode(picture(seed=night)))
        label(job.model_copy(update={"run_id": f"night-{night}"}))
    store = Store(str(out))
    assert relabel(store, Thresholds(default=0.2), run_id="new").rows == 2
    assert {row["uri"].rpartition("/")[2] for row in table(out, "new")} == {"a.jpg", "b.jpg"}  # type: ignore[attr-defined]
    record = read_record(store, "new")
    assert record is not None
    assert record.relabeled_from == ("night-1", "night-2")
    assert verify(store) == []
    assert not label(job.model_copy(update={"run_id": "night-3"})).is_new, "relabeled images are not scored again"
    (images / "b.jpg").unlink()
    assert label(job.model_copy(update={"run_id": "night-4"})).is_new, "vanished inputs are still recorded"


def test_top_k_and_what_is_refused(demo: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = quick_job(inputs=(str(demo),), out=str(out), all_scores="top_k", top_k=2, run_id="top")
    label(job)
    store = Store(str(out))
    relabel(store, Thresholds(default=0.0), run_id="cut")
    # The two best of all_scores, and the third label where a photograph had one.
    assert {len(row["labels"]) for row in table(out, "cut")} == {2, 3}  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="run 'cut' exists already"):
        relabel(store, Thresholds(default=0.5), run_id="cut")
    with pytest.raises(UsageError, match="unknown class 'persn': did you mean 'person'"):
        relabel(store, Thresholds(classes={"persn": 0.5}))
    with pytest.raises(UsageError, match="no committed run 'nothing'"):
        relabel(store, Thresholds(default=0.5), source="nothing")
    label(
        job.model_copy(
            update={
                "inputs": (str(demo / "cat.jpg"),),
                "model": str(tiny_folder),
                "run_id": "tiny",
                "all_scores": "none",
            }
        )
    )
    with pytest.raises(
        UsageError, match="are of 2 models: EfficientNet-Lite0_ML .run cut., .* .run tiny.; choose one run by --from"
    ):
        relabel(store, Thresholds(default=0.5))
    with pytest.raises(UsageError, match="scores were not kept"):
        relabel(store, Thresholds(default=0.5), source="tiny")

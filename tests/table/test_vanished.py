"""Images that are gone stay in the table, and are left out where images are shown."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlcls_ray import open_labels
from mlcls_ray.cli.present import open_present
from mlcls_ray.config import Thresholds
from mlcls_ray.explore.report import make_report
from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.relabel import relabel
from tests.conftest import encode, picture, quick_job

OLD = Path(__file__).parent.parent / "fixtures/output_before_redesign/out"


def names(table: LabelTable, view: str = "labels") -> list[str]:
    return sorted(Path(uri).stem for (uri,) in table.sql(f"SELECT DISTINCT uri FROM {view}").fetchall())


def test_an_old_output_and_its_relabeling(tmp_path: Path) -> None:
    """One of its images was gone on the second night."""
    out = str(shutil.copytree(OLD, tmp_path / "out"))
    assert names(open_labels(out), "vanished") == ["boats"]
    table = open_labels(out, vanished=False)
    assert table.left_out == 1
    assert {*names(open_labels(out))} - {*names(table)} == {"boats"}
    relabel(Store(out), Thresholds(default=0.5), run_id="again")
    assert "boats" not in names(open_labels(out, vanished=False))


@pytest.mark.usefixtures("loopback_ray")
def test_gone_and_back_again(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(encode(picture(seed=number)))
    out = str(tmp_path / "o'ut")
    job = quick_job(inputs=(str(photos),), out=out, model=str(tiny_folder), incremental=True)
    first = label(job)
    assert names(open_labels(out, vanished=False)) == ["0", "1", "2", "3"]
    assert open_present(out, {}).left_out == 0
    assert "vanished" not in capsys.readouterr().err

    for number in (1, 2):
        (photos / f"{number}.jpg").rename(tmp_path / f"{number}.jpg")
    label(job)
    assert names(open_labels(out)) == ["0", "1", "2", "3"], "the table forgets nothing by itself"
    assert names(open_labels(out), "vanished") == ["1", "2"]
    present = open_present(out, {})
    assert (names(present), names(present, "scores"), names(present, "all_rows")) == (
        ["0", "3"],
        ["0", "3"],
        ["0", "1", "2", "3"],
    )
    assert "2 images that vanished since they were labeled are left out; --vanished" in capsys.readouterr().err
    assert "<dt>vanished, left out</dt><dd>2</dd>" in make_report(present, 0)
    assert names(open_present(out, {}, vanished=True)) == ["0", "1", "2", "3"]
    assert names(open_present(out, {}, first.run_id)) == ["0", "1", "2", "3"], "the rows of one run are all there"

    relabel(Store(out), Thresholds(default=0.5), run_id="again")
    assert names(open_labels(out, vanished=False)) == ["0", "3"], "a relabeling reads no image"

    (tmp_path / "1.jpg").rename(photos / "1.jpg")  # the same file: size and time have not changed
    assert label(job).rows == 1
    assert names(open_labels(out, vanished=False)) == ["0", "1", "3"]
    os.remove(photos / "1.jpg")
    label(job)
    assert names(open_labels(out, vanished=False)) == ["0", "3"], "gone for the second time"

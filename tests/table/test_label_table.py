"""`open_labels`: the same rows by every way out, one run's rows, thresholds beside them, and images inline."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlcls_ray import open_labels
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from tests.conftest import ROOT
from tests.table.outputs import write_run


def test_the_same_rows_by_every_way_out(labeled: Path, loopback_ray: None) -> None:
    table = open_labels(str(labeled))
    uris = sorted(row[0] for row in table.sql("SELECT uri FROM labels").fetchall())
    assert len(uris) == 15
    assert sorted(table.arrow()["uri"].to_pylist()) == uris
    assert sorted(table.pandas()["uri"]) == uris
    assert sorted(table.polars()["uri"].to_list()) == uris
    assert table.all_rows().count("*").fetchall() == [(30,)]
    rows = table.ray()
    assert rows.count() == 30, "the rows of both runs, in parallel"
    assert set(rows.schema().names) >= {"uri", "labels", "all_scores"}


def test_ray_reads_both_layouts(tmp_path: Path, loopback_ray: None) -> None:
    folder = shutil.copytree(ROOT / "tests/fixtures/output_before_redesign/out", tmp_path / "out")
    write_run(Store(str(folder)), "today")
    rows = open_labels(str(folder)).ray().to_pandas()
    assert sorted(rows["run_number"]) == [0] * 7 + [1] * 6
    assert rows["all_scores"].notna().sum() == 6 + 5


def test_one_run_and_its_thresholds(labeled: Path) -> None:
    table = open_labels(str(labeled), run_id="two")
    assert table.sql("SELECT DISTINCT run_id FROM all_rows").fetchall() == [("two",)]
    ((cat,),) = table.sql("SELECT threshold FROM thresholds WHERE label = 'cat'").fetchall()
    assert cat == pytest.approx(0.3)
    assert table.sql("SELECT count(*) FROM thresholds").fetchall() == [(80,)]
    assert table.sql("SELECT count(*), min(threshold) < 0.5 FROM scores WHERE label = 'cat'").fetchall() == [(13, True)]
    with pytest.raises(UsageError, match="holds no committed run 'three'"):
        open_labels(str(labeled), run_id="three")


def test_images_inline(labeled: Path) -> None:
    html = open_labels(str(labeled), run_id="one").show(3, where="list_contains(labels, 'person')").data
    assert html.count("data:image/jpeg;base64,") == 3
    assert html.count("person 0.") == 3
    hostile = open_labels(str(labeled)).show(20).data
    assert "<img src=x onerror" not in hostile
    assert "&lt;img src=x onerror" in hostile

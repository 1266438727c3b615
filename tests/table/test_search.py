"""`mlcls query` and `mlcls search` over the demo's table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import RunError
from mlcls_ray.job.label import label
from mlcls_ray.storage.uris import uri_of_path
from mlcls_ray.table.search import gather
from tests.conftest import quick_job, run_cli


@pytest.fixture(scope="module")
def out(loopback_ray: None, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found") / "out"
    label(quick_job(inputs=(str(demo),), out=str(folder)))
    return folder


def test_queries(out: Path, tmp_path: Path) -> None:
    sql = "SELECT unnest(labels) AS label, count(*) AS images FROM labels GROUP BY 1 ORDER BY 2 DESC, 1"
    assert "person" in run_cli("query", out, sql).stdout
    assert run_cli("query", out, sql, "--format", "csv").stdout.splitlines()[:2] == ["label,images", "person,4"]
    (first, *_) = run_cli("query", out, sql + ";", "--format", "json").stdout.splitlines()
    assert json.loads(first) == {"label": "person", "images": 4}
    run_cli("query", out, sql, "--format", "parquet", "--save", tmp_path / "a.parquet")
    assert duckdb.sql(f"SELECT sum(images) FROM '{tmp_path}/a.parquet'").fetchall()[0][0] > 8


def test_bad_queries(out: Path, tmp_path: Path) -> None:
    assert "nothing" in run_cli("query", out, "SELECT nothing FROM labels", check=2).stderr
    assert "needs --save" in run_cli("query", out, "SELECT 1", "--format", "parquet", check=2).stderr
    (tmp_path / "a.csv").touch()
    assert "exists already" in run_cli("query", out, "SELECT 1", "--save", tmp_path / "a.csv", check=2).stderr


def test_search(out: Path, tmp_path: Path) -> None:
    lines = run_cli("search", out, "--label", "person").stdout.splitlines()
    scores = [float(line.split("\t")[0]) for line in lines]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert len(run_cli("search", out, "--label", "person", "--min-score", "0.7").stdout.splitlines()) == 3
    (tied,) = run_cli("search", out, "--label", "person", "--label", "tie").stdout.splitlines()
    assert tied.endswith("grace-hopper.jpg")
    untied = run_cli("search", out, "--label", "person", "--not", "tie", "--copy", tmp_path / "found")
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == sorted(
        line.rpartition("/")[2] for line in untied.stdout.splitlines()
    )
    run_cli("search", out, "--label", "cat", "--link", tmp_path / "linked")
    assert (tmp_path / "linked" / "cat.jpg").read_bytes()[:2] == b"\xff\xd8"
    others = run_cli("search", out, "--not", "person").stdout.splitlines()
    unlabeled = run_cli("search", out, "--unlabeled").stdout.splitlines()
    assert (len(others), len(unlabeled)) == (12 - 4, 3)
    assert all(line.startswith("0.000\t") for line in unlabeled)
    assert set(unlabeled) < set(others)
    assert "did you mean 'person'" in run_cli("search", out, "--label", "persn", check=2).stderr


def test_images_that_are_gone_are_named_and_the_others_are_copied(demo: Path, tmp_path: Path) -> None:
    gone = [str(tmp_path / f"gone {number}.jpg") for number in range(7)]
    odd = tmp_path / os.fsdecode(b"\xe9t\xe9?.jpg")
    odd.write_bytes((demo / "cat.jpg").read_bytes())
    uris = [str(demo / "cat.jpg"), *gone, uri_of_path(odd), "http://user:secret@[bad/a.jpg?token=secret"]
    for as_links, verb in ((False, "copied"), (True, "linked")):
        with pytest.raises(
            RunError, match=rf"8 of 10 images could not be {verb}: .*gone 0\.jpg.*; and 3 more"
        ) as raised:
            gather(uris, tmp_path / verb, as_links, S3Options())
        assert "secret" not in str(raised.value)
        assert raised.value.exit_code == 1
        assert set(os.listdir(tmp_path / verb)) == {"cat.jpg", odd.name}
        assert (tmp_path / verb / odd.name).read_bytes() == odd.read_bytes()

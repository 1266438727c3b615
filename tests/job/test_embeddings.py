"""The embedding column: in the table, through what rewrites tables, and for search by likeness."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.tiny_network import CHANNELS

from mlcls_ray import schema
from mlcls_ray.cli import app
from mlcls_ray.config import LabelJob, Thresholds
from mlcls_ray.errors import UsageError
from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.table.example import find_example
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.publish import publish
from mlcls_ray.table.relabel import relabel
from mlcls_ray.table.search import find_alike
from mlcls_ray.table.verify import verify
from tests.conftest import quick_job

pytestmark = pytest.mark.usefixtures("loopback_ray")


@pytest.fixture(scope="module")
def images(folder_of_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, and one of them twice."""
    folder = tmp_path_factory.mktemp("embedded") / "images"
    shutil.copytree(folder_of_images, folder, symlinks=True)
    shutil.copy(folder / "a/01.jpg", folder / "copy.jpg")
    return folder


@pytest.fixture(scope="module")
def job(tiny_folder: Path, images: Path) -> LabelJob:
    out = str(images.parent / "out")
    return quick_job(inputs=(str(images),), out=out, model=str(tiny_folder), run_id="r", embeddings=True, dedupe=True)


@pytest.fixture(scope="module")
def labeled(job: LabelJob, loopback_ray: None) -> str:
    label(job)
    return job.out


def rows(out: str, run_id: str = "r") -> pa.Table:
    return pq.read_table(f"{out}/runs/{run_id}/labels").sort_by(schema.ROW_ID)


def test_what_is_ok_has_one(labeled: str) -> None:
    assert verify(Store(labeled)) == []
    table = rows(labeled)
    assert table.schema.equals(schema.LABEL_TABLE)
    is_ok = np.array(table["status"].to_pylist()) == "ok"
    assert (table[schema.EMBEDDING].is_valid().to_numpy() == is_ok).all()
    lengths = [np.linalg.norm(one) for one in table[schema.EMBEDDING].to_pylist() if one]
    np.testing.assert_allclose(lengths, 1, atol=1e-2)


def test_the_most_alike_is_the_copy(labeled: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = open_labels(labeled)
    original, copy = (str(images / name) for name in ("a/01.jpg", "copy.jpg"))
    found = find_alike(table.database, find_example(table, original), [], [], 0.0)
    assert found[0] == (copy, pytest.approx(1.0))
    assert original not in dict(found)
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
    app(["search", labeled, "--like", original, "--limit", "1"], result_action="return_value")
    assert copy in capsys.readouterr().out
    for name, reason in (("nowhere.jpg", "missing"), ("empty.jpg", "empty")):
        with pytest.raises(UsageError, match=f"{name}' has no embedding in the table, and cannot be read: {reason}"):
            find_example(table, str(images / name))


def test_an_example_by_its_path_or_from_elsewhere(
    labeled: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = open_labels(labeled)
    monkeypatch.chdir(images)
    assert find_example(table, "a/01.jpg") == find_example(table, f"file://{images}/a/01.jpg")
    assert find_example(table, "a/01.jpg").uri == str(images / "a/01.jpg")
    shutil.copy("a/01.jpg", tmp_path / "new.jpg")
    found = find_alike(table.database, find_example(table, str(tmp_path / "new.jpg")), [], [], 0.0)
    assert {uri for uri, cosine in found if cosine == pytest.approx(1.0, abs=1e-3)} >= {
        str(images / "a/01.jpg"),
        str(images / "copy.jpg"),
    }


def test_it_outlives_relabel_and_a_table_format(labeled: str) -> None:
    relabel(Store(labeled), Thresholds(default=0.2), source="r", run_id="again")
    before, after = (rows(labeled, run).sort_by(schema.URI)[schema.EMBEDDING].to_pylist() for run in ("r", "again"))
    assert after == before
    assert verify(Store(labeled)) == []
    publish(Store(labeled), "delta")
    from deltalake import DeltaTable

    delta = DeltaTable(f"{labeled}/delta").to_pyarrow_table(filters=[("run_id", "=", "r")]).sort_by(schema.ROW_ID)
    assert [one and len(one) for one in delta[schema.EMBEDDING].to_pylist()] == [
        one and CHANNELS for one in rows(labeled)[schema.EMBEDDING].to_pylist()
    ]


def test_runs_with_and_without(job: LabelJob, labeled: str) -> None:
    label(job.model_copy(update={"run_id": "plain", "embeddings": False, "limit": 3}))
    database = open_labels(labeled).database
    assert database.execute(f"SELECT count(*) FROM labels WHERE {schema.EMBEDDING} IS NOT NULL").fetchall()[0][0] > 0
    with pytest.raises(UsageError, match="no embeddings: label with --embeddings"):
        find_example(open_labels(labeled, run_id="plain"), "a")
    with pytest.raises(UsageError, match="started with embeddings False, not with True"):
        label(job.model_copy(update={"run_id": "plain", "limit": 3}))


def test_an_engine_that_gives_none(job: LabelJob) -> None:
    with pytest.raises(UsageError, match="engine paddle gives scores only"):
        label(job.model_copy(update={"engine": "paddle", "run_id": "paddle"}))


def test_search_wants_something(labeled: str) -> None:
    with pytest.raises(UsageError, match="give --label, --not, --unlabeled, --like"):
        app(["search", labeled], result_action="return_value")

"""Several models in one pass over the images: each model's output is what a job of its own would have written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.tiny_network import export_tiny

from mlcls_ray import open_labels, schema
from mlcls_ray.config import LabelJob
from mlcls_ray.errors import UsageError
from mlcls_ray.job.check import check_job
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.label import LabelResult, label
from mlcls_ray.job.plan import plan_run
from mlcls_ray.job.retry import retry_job
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.records import read_success
from mlcls_ray.table.verify import verify
from tests.conftest import TINY_VOCABULARY, encode, picture, quick_job

pytestmark = pytest.mark.usefixtures("loopback_ray")

COMPARED = (schema.ROW_ID, schema.URI, schema.STATUS, schema.LABELS, schema.SCORES, schema.ALL_SCORES, schema.MODEL)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models with other vocabularies and input sizes."""
    base = tmp_path_factory.mktemp("models")
    for name in ("one", "two"):
        (base / name).mkdir()
    export_tiny(base / "one", TINY_VOCABULARY, name="one")
    export_tiny(base / "two", ("cat", "dog", "bear"), input_size=48, seed=1, name="two")
    return str(base / "one"), str(base / "two")


@pytest.fixture(scope="module")
def first_job(folders: tuple[str, str], folder_of_images: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelJob:
    out = str(tmp_path_factory.mktemp("labeled") / "out")
    return quick_job(
        inputs=(str(folder_of_images),), out=out, models=folders, run_id="r", rows_per_fragment=7, block_rows=4
    )


@pytest.fixture(scope="module")
def first_result(first_job: LabelJob, loopback_ray: None) -> LabelResult:
    return label(first_job)


@pytest.fixture
def job(first_job: LabelJob, tmp_path: Path) -> LabelJob:
    """The same job with an output of its own."""
    return first_job.model_copy(update={"out": str(tmp_path / "out")})


@pytest.fixture
def done_job(first_job: LabelJob, first_result: LabelResult, job: LabelJob) -> LabelJob:
    """The job after its run: its output is a copy."""
    shutil.copytree(first_job.out, job.out)
    return job


def outputs(job: LabelJob) -> list[str]:
    return [f"{job.out}/one", f"{job.out}/two"]


def table(out: str) -> pa.Table:
    return pq.read_table(f"{out}/runs/r/labels").sort_by(schema.ROW_ID).select(COMPARED)


def test_each_output_is_what_its_own_job_writes(first_job: LabelJob, first_result: LabelResult, tmp_path: Path) -> None:
    job = first_job
    assert first_result.rows == 30
    for out, model in zip(outputs(job), job.models, strict=True):
        assert verify(Store(out)) == []
        alone = job.model_copy(update={"models": (), "model": model, "out": str(tmp_path / f"alone-{Path(out).name}")})
        label(alone)
        assert table(out).equals(table(alone.out))
    assert label(job) == first_result.model_copy(update={"is_new": False}), "committed, and left as it is"


def test_their_common_folder_names_them(done_job: LabelJob) -> None:
    job = done_job
    message = f"'{job.out}' holds no committed run: did you mean '{outputs(job)[0]}' or '{outputs(job)[1]}'"
    with pytest.raises(UsageError, match=re.escape(message)):
        open_labels(job.out)
    with pytest.raises(UsageError, match=re.escape(message)):
        retry_job(job.out, (), None, None)
    with pytest.raises(UsageError, match="holds no runs: did you mean"):
        verify(Store(job.out))


def test_what_only_one_model_has_runs_again_in_both(done_job: LabelJob) -> None:
    """As if the driver had died between two models' fragments, and again between their commits."""
    job = done_job
    one, two = (Store(out) for out in outputs(job))
    for store in (one, two):
        store.remove(layout.success("r"))
    lost = sorted(store_names(two))[1]
    two.remove(f"{layout.labels_folder('r')}/{lost}")
    label(job)
    assert [verify(store) for store in (one, two)] == [[], []]
    assert store_names(one) == store_names(two)
    two.remove(layout.success("r"))
    before = read_success(one, "r")
    label(job)
    assert verify(two) == []
    assert read_success(one, "r") == before


def store_names(store: Store) -> list[str]:
    return store.names(layout.labels_folder("r"))


def test_a_driver_that_died_before_the_second_manifest(job: LabelJob) -> None:
    checked = check_job(job)
    plan_run(checked._replace(models=checked.models[:1], records=(None,)), living_nodes())
    label(job)
    assert [verify(Store(out)) for out in outputs(job)] == [[], []]


def test_an_unfinished_run_without_a_name_is_found(job: LabelJob) -> None:
    unnamed = job.model_copy(update={"run_id": None})
    success = label(unnamed)
    second = Store(outputs(job)[1])
    second.remove(layout.success(success.run_id))
    again = label(unnamed)
    assert again.run_id == success.run_id
    assert verify(second) == []


def test_other_inputs_under_the_same_name(job: LabelJob, tmp_path: Path) -> None:
    label(job.model_copy(update={"models": (), "model": job.models[1], "out": outputs(job)[1], "limit": 3}))
    with pytest.raises(UsageError, match="started with limit 3, not with None"):
        label(job)


def test_what_does_not_go_together(job: LabelJob) -> None:
    with pytest.raises(UsageError, match="'one' is there more than once"):
        label(job.model_copy(update={"models": (job.models[0], job.models[0])}))
    with pytest.raises(UsageError, match="no output"):
        label(job.model_copy(update={"out": ""}))


def test_identical_files_are_scored_once_by_each_model(job: LabelJob, tmp_path: Path) -> None:
    """A driver that died before the second model's commit: the copies are known in its output too."""
    folder = tmp_path / "copies"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(encode(picture(seed=number % 2)))
    job = job.model_copy(update={"inputs": (str(folder),), "dedupe": True})
    label(job)
    first, second = outputs(job)
    for out in (first, second):
        assert verify(Store(out)) == []
        moments = pq.read_table(f"{out}/runs/r/labels", columns=["content_hash", "labeled_at"]).to_pylist()
        assert len({row["content_hash"] for row in moments}) == 2
        assert len({(row["content_hash"], row["labeled_at"]) for row in moments}) == 2, (
            "a copy has its original's moment"
        )
    store = Store(second)
    store.remove(layout.success("r"))
    store.remove_folder(layout.labels_folder("r"))
    label(job)
    assert verify(store) == []
    assert table(second).num_rows == 8


def test_the_commit_is_each_models_own(first_job: LabelJob, first_result: LabelResult) -> None:
    records = [json.loads(Path(out, "runs/r/run.json").read_text()) for out in outputs(first_job)]
    assert [record["model"] for record in records] == ["one", "two"]
    assert [len(record["thresholds"]) for record in records] == [len(TINY_VOCABULARY), 3]

"""Everything that can be known to fail does so before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import UsageError
from mlcls_ray.job.check import check_job
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.plan import plan_run
from mlcls_ray.job.resume import public_config
from mlcls_ray.table import layout
from mlcls_ray.table.records import new_run_id

NODES = [Node(2, {"CPU": 2.0})]


@pytest.fixture
def job(folder_of_images: Path, tiny_folder: Path, tmp_path: Path) -> LabelJob:
    return LabelJob(inputs=(str(folder_of_images),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r")


def changed(job: LabelJob, **values: object) -> LabelJob:
    return LabelJob.model_validate({**job.model_dump(), **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out": ""}, "no output"),
        ({"inputs": ()}, "no input"),
        ({"inputs": "/nowhere"}, "does not exist"),
        ({"model": "PP-LCNet"}, "unknown model 'PP-LCNet': did you mean"),
        ({"threshold": {"dgo": 0.5}}, "unknown class 'dgo': did you mean 'dog'"),
    ],
)
def test_wrong_jobs(job: LabelJob, values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_job(changed(job, **values))


def test_an_output_that_holds_something_else(job: LabelJob, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"holds something else \(thesis.tex\)"):
        check_job(job)


def test_nothing_found(job: LabelJob, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    checked = check_job(changed(job, inputs=str(tmp_path / "none")))
    with pytest.raises(UsageError, match="no image found in"):
        plan_run(checked, NODES)
    assert checked.models[0].store.read(layout.run_json("r")) is None


def test_the_manifest_is_frozen_before_run_json(job: LabelJob) -> None:
    run = plan_run(check_job(job), NODES)
    assert run.rows == 30
    assert run.models[0].record.thresholds == {"cat": 0.5, "dog": 0.5, "猫": 0.5}
    written = json.loads((run.store.read(layout.run_json("r"))) or b"")
    assert written["versions"]["ray"]
    assert (written["hardware"]["cpus"], written["config"]["inputs"]) == ([2], list(job.inputs))


def test_the_label_map_is_recorded(job: LabelJob) -> None:
    run = plan_run(check_job(changed(job, map={"cat": "animal", "dog": "animal"})), NODES)
    record = run.models[0].record
    assert record.label_map == {"cat": "animal", "dog": "animal"}
    assert record.threshold_id == f"0.5+{record.resolved_map.id}"
    (spec,) = run.worker_spec().models
    assert spec.label_names == ("animal", "animal", "猫")
    assert spec.provenance.threshold_id == record.threshold_id


def test_a_map_of_a_job_names_labels_of_any_of_its_models(job: LabelJob, tmp_path: Path) -> None:
    out = str(tmp_path / "both")
    both = changed(job, out=out, model="starter", models=(job.model, "starter"), map={"猫": "Katze", "person": "human"})
    first, second = check_job(both).models
    assert first.label_map.changed == {"猫": "Katze"}
    assert second.label_map.changed == {"person": "human"}
    assert second.job.map.labels == {"person": "human"}, "a retry of this output knows no other model"
    with pytest.raises(UsageError, match="map: the model has no label 'persn': did you mean 'person'"):
        check_job(changed(both, map={"persn": "human"}))


def test_a_half_listed_manifest_is_listed_again(job: LabelJob) -> None:
    checked = check_job(job)
    checked.models[0].store.write(f"{layout.manifest_folder('r')}/part-00007.parquet", b"of a listing that died")
    assert plan_run(checked, NODES).rows == 30
    assert checked.models[0].store.names(layout.manifest_folder("r")) == ["part-00000.parquet"]


def test_a_run_is_resumed_with_the_same_manifest(job: LabelJob, folder_of_images: Path) -> None:
    assert plan_run(check_job(job), NODES).attempt == 1
    again = plan_run(check_job(job), NODES)
    assert (again.attempt, again.rows, len(again.done)) == (2, 30, 0)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"threshold": 0.9}, "threshold"),
        ({"map": {"cat": "Katze"}}, "map"),
        ({"model": "starter"}, "model"),
        ({"limit": 3}, "limit"),
    ],
)
def test_a_run_is_not_resumed_as_another(job: LabelJob, values: dict[str, object], name: str) -> None:
    plan_run(check_job(job), NODES)
    with pytest.raises(UsageError, match=f"run 'r' was started with {name} .*, not with .*; use another --run-id"):
        check_job(changed(job, **values))


def test_the_same_command_goes_on_with_what_it_left_unfinished(job: LabelJob) -> None:
    unnamed = changed(job, run_id=None)
    first = plan_run(check_job(unnamed), NODES).run_id
    assert check_job(unnamed).run_id == first
    assert check_job(changed(unnamed, threshold=0.9)).run_id != first
    assert check_job(changed(unnamed, limit=3)).run_id != first
    check_job(unnamed).models[0].store.write(layout.success(first), b"{}")
    assert check_job(unnamed).run_id != first
    plan_run(check_job(job), NODES)
    assert check_job(unnamed).run_id not in (first, "r"), "a named run is its name's"


def test_secrets_do_not_reach_run_json() -> None:
    job = LabelJob(inputs=("https://u:p@host/a.jpg?X-Amz-Signature=s",), out="o")
    assert public_config(job)["inputs"] == ["https://host/a.jpg"]


def test_run_ids_sort_by_time_and_differ() -> None:
    assert new_run_id() != new_run_id()
    assert LabelJob(run_id=new_run_id())

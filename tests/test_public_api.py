"""The public names of `mlcls_ray`: which there are, what importing them costs, and where `label` works."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient

import mlcls_ray
from mlcls_ray import LabelJob, LabelResult, label
from tests.conftest import encode, picture

STATUSES = {"ok": 4, "empty": 1}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of four good images and an empty file."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(encode(picture(seed=number)))
    (folder / "empty.jpg").write_bytes(b"")
    return str(folder)


@pytest.fixture
def fields(photos: str, tiny_folder: Path, tmp_path: Path) -> dict[str, str]:
    """The fields of a small job."""
    out = str(tmp_path / "out")
    return {"inputs": photos, "out": out, "model": str(tiny_folder), "engine": "paddle", "precision": "fp32"}


def test_the_public_names() -> None:
    names = {"LabelJob", "LabelResult", "__version__", "create_pipeline", "label", "open_labels"}
    assert set(mlcls_ray.__all__) == set(dir(mlcls_ray)) == names


def test_every_public_name_exists_and_is_documented() -> None:
    assert all(getattr(mlcls_ray, name).__doc__ for name in mlcls_ray.__all__)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'mlcls_ray' has no attribute 'relabel'"):
        mlcls_ray.relabel  # noqa: B018


def test_importing_loads_no_heavy_package() -> None:
    code = "import sys, mlcls_ray; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"ray", "paddle", "pyarrow", "duckdb", "numpy", "pydantic"} & set(done.stdout.split())


def test_label_job_and_create_pipeline_do_not_load_ray() -> None:
    code = "import sys; from mlcls_ray import LabelJob, create_pipeline, open_labels; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.usefixtures("loopback_ray")
def test_label_beside_a_ray_that_runs_already(fields: dict[str, str]) -> None:
    result = label(**fields, run_id="first")
    assert (result.run_id, result.rows, result.statuses, result.is_new) == ("first", 5, STATUSES, True)
    assert list(result.outputs.values()) == [fields["out"]]
    assert result.seconds > 0
    assert pq.read_table(result.path).num_rows == result.open().arrow().num_rows == 5

    job = LabelJob.model_validate(fields | {"run_id": "first"})
    again = label(job)
    assert (again.rows, again.statuses, again.is_new) == (5, STATUSES, False)


@pytest.mark.usefixtures("loopback_ray")
def test_label_inside_a_ray_task(fields: dict[str, str]) -> None:
    import ray

    task = ray.remote(num_cpus=0)(label)
    result = ray.get(task.remote(**fields))
    assert (result.rows, result.statuses) == (5, STATUSES)


@pytest.mark.usefixtures("loopback_ray")
def test_label_where_an_event_loop_runs(fields: dict[str, str]) -> None:
    """As in the kernel of a notebook."""

    async def call() -> LabelResult:
        return label(**fields)

    assert asyncio.run(call()).statuses == STATUSES


@pytest.mark.slow
def test_label_in_a_notebook(fields: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel runs an event loop, and its output is no terminal."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    code = [
        f"from mlcls_ray import label\nresult = label(**{fields!r})",
        "result.statuses, result.open().arrow().num_rows",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in code])
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    (output,) = notebook.cells[1].outputs
    assert ast.literal_eval(output["data"]["text/plain"]) == (STATUSES, 5)


@pytest.mark.usefixtures("fresh_ray")
def test_label_twice_starts_its_own_ray(fields: dict[str, str]) -> None:
    first = label(**fields, run_id="first")
    second = label(LabelJob.model_validate(fields | {"run_id": "first"}), run_id="second")
    assert [(result.statuses, result.is_new) for result in (first, second)] == [(STATUSES, True)] * 2
    assert second.run_id == "second", "fields override those of the job"

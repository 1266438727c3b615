"""`mlcls status`: committed, running and unfinished runs, from their files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import Run
from mlcls_ray.table import layout
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.status import run_status
from tests.conftest import run_cli
from tests.table.fragments import RUN, written


def test_a_run_from_start_to_end(run: Run) -> None:
    store = run.store
    started = run_status(store, RUN)
    assert started is not None
    assert (started.state, started.done, started.rows, started.rate) == ("unfinished", 0, 5, None)
    fragments = written(run, (0, 1), (2,))
    with run_lease(store, RUN):
        running = run_status(store, RUN)
    assert running is not None
    assert (running.state, running.done, running.statuses) == ("running", 3, {"empty": 3})
    assert running.rate is not None
    assert running.seconds_left == pytest.approx(2 / running.rate)
    store.write(f"{layout.labels_folder(RUN)}/{layout.fragment_name(1, 8)}", b"torn")
    assert (run_status(store, RUN) or started).done == 3
    store.remove(f"{layout.labels_folder(RUN)}/{layout.fragment_name(1, 8)}")
    commit(run.models[0], written(run, (0, 1), (2,), (3, 4)), seconds=2.0)
    assert len(fragments) == 2
    done = run_status(store, RUN)
    assert done is not None
    assert (done.state, done.done, done.rate, done.seconds_left) == ("committed", 5, 2.5, None)
    assert run_status(store, "none") is None


def test_the_command(run: Run, tmp_path: Path) -> None:
    commit(run.models[0], written(run, (0, 3), (1, 2, 4)), seconds=1.0)
    assert "committed" in run_cli("status", tmp_path, env={"COLUMNS": "120"}).stdout
    (line,) = run_cli("status", tmp_path, "--json").stdout.splitlines()
    assert json.loads(line)["statuses"] == {"empty": 5}
    assert "holds no runs" in run_cli("status", tmp_path / "nothing", check=2).stderr

"""`mlcls status`: committed, running and unfinished runs, from their files alone."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import Run, next_attempt
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.progress import Progress, write_progress
from mlcls_ray.table.status import newest_status, run_status
from tests.conftest import run_cli
from tests.table.fragments import RUN, written
from tests.table.outputs import write_run


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


def test_a_running_run_is_as_far_as_its_bar(run: Run) -> None:
    """The driver has counted two rows more than there are in fragments; one is of an earlier attempt."""
    written(run, (0,))
    second = next_attempt(run, run.nodes, run.copies)
    written(second, (1,))
    progress = Progress(
        run_id=RUN, state="running", rows=5, done=4, statuses={"ok": 2, "empty": 1}, images_per_s=0.5, seconds_left=2.0,
        updated_at=datetime.now(timezone.utc),
    )  # fmt: skip
    write_progress(run.store, progress)
    left = run_status(run.store, RUN)
    assert left is not None
    assert (left.state, left.done, left.statuses) == ("unfinished", 2, {"empty": 2}), (
        "its driver is gone: what is written counts"
    )
    with run_lease(run.store, RUN):
        running = run_status(run.store, RUN)
        write_progress(run.store, progress.model_copy(update={"state": "ended"}))
        ended = run_status(run.store, RUN)
    assert running is not None
    assert (running.state, running.done, running.statuses) == ("running", 4, {"ok": 2, "empty": 2})
    assert (running.rate, running.seconds_left) == (0.5, 2.0)
    assert ended is not None
    assert (ended.state, ended.done) == ("running", 2), "between two attempts"


def test_runs_are_in_the_order_of_their_starts(tmp_path: Path) -> None:
    """Whatever their names say, and the clock: that of the first run was ahead."""
    store = Store(str(tmp_path))
    for run_id in ("z", "m", "a" * 90):
        write_run(store, run_id)
    ahead = json.loads((tmp_path / layout.run_json("z")).read_text())
    (tmp_path / layout.run_json("z")).write_text(json.dumps({**ahead, "created_at": "2100-01-01T00:00:00Z"}))
    assert [status.run_id for status in newest_status(store, 10)] == ["z", "m", "a" * 90]
    assert [status.run_id for status in newest_status(store, 2)] == ["m", "a" * 90]
    assert newest_status(store, 0) == []
    lines = run_cli("status", tmp_path, env={"COLUMNS": "80"}).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "z", "m", "a" * 90], "a line for each run, in a pipe too"
    assert all(line == line.rstrip() for line in lines)


def test_the_command(run: Run, tmp_path: Path) -> None:
    commit(run.models[0], written(run, (0, 3), (1, 2, 4)), seconds=1.0)
    assert "committed" in run_cli("status", tmp_path).stdout
    (line,) = run_cli("status", tmp_path, "--json").stdout.splitlines()
    assert json.loads(line)["statuses"] == {"empty": 5}
    assert "holds no runs" in run_cli("status", tmp_path / "nothing", check=2).stderr

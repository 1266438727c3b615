"""Upkeep that is killed at any operation: each reader sees the old files or the new ones, and the same command finishes."""

from __future__ import annotations

import glob
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from mlcls_ray import open_labels
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.gc import find_leftovers, remove_leftovers
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.prune import find_superseded
from mlcls_ray.table.publish import publish
from mlcls_ray.table.verify import verify
from tests.conftest import ROOT
from tests.table import killed
from tests.table.outputs import URIS, begin_run, write_run

SOME = pytest.param(16, id="some")
ALL = pytest.param(1, id="all", marks=pytest.mark.slow)
Rows = list[tuple[object, ...]]


def newest(table: LabelTable) -> Rows:
    return table.sql("SELECT uri, run_id, labels FROM labels ORDER BY uri").fetchall()


def left(store: Store) -> list[str]:
    """What `gc` would remove, but for half-written files, which no reader looks at."""
    return [leftover.name for leftover in find_leftovers(store, 0) if leftover.reason != "half-written file"]


def listed(out: Path, run_id: str) -> list[str]:
    """The rows that a reader finds who lists the files of a run."""
    files = glob.glob(f"{glob.escape(str(out))}/runs/{run_id}/labels/*.parquet")
    return sorted(uri for file in files for uri in pq.ParquetFile(file).read(["uri"]).column(0).to_pylist())


@pytest.fixture
def template(tmp_path: Path) -> Path:
    folder = tmp_path / "template"
    write_run(Store(str(folder)), "one")
    return folder


def states(command: str, template: Path, step: int) -> Iterator[Path]:
    """The outputs that the killed processes left, the last one of a process that was not killed."""
    folder = template.parent / "killed"
    folder.mkdir()
    words = [sys.executable, "-m", "tests.table.killed", command, str(template), str(folder), str(step)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for number in range(0, int(done.stdout) + 1, step):
        yield folder / str(number)


@pytest.mark.parametrize("step", [SOME, ALL])
def test_compact(template: Path, step: int) -> None:
    before = newest(open_labels(str(template)))
    count = moments_without = 0
    for out in states("compact", template, step):
        count += 1
        store = Store(str(out))
        assert newest(open_labels(str(out))) == before
        files = listed(out, "one")
        assert files in (list(URIS), [])
        moments_without += not files
        problems = verify(store)
        assert (
            problems == []
            if files
            else problems == ["run one: a compaction was interrupted: `mlcls compact` finishes it"]
        )
        killed.COMMANDS["compact"](store)
        assert (newest(open_labels(str(out))), listed(out, "one"), verify(store)) == (before, list(URIS), [])
        assert (len(store.names("runs/one/labels")), left(store)) == (1, [])
    assert count > 20 // step - 1
    assert moments_without <= 1, "between two renames a reader that lists files finds none, and says so"


@pytest.mark.parametrize("step", [SOME, ALL])
def test_compact_then_gc(template: Path, step: int) -> None:
    before = newest(open_labels(str(template)))
    for out in states("compact", template, step):
        store = Store(str(out))
        remove_leftovers(store, find_leftovers(store, 0))
        assert (newest(open_labels(str(out))), listed(out, "one"), verify(store)) == (before, list(URIS), [])
        assert find_leftovers(store, 0) == []


@pytest.mark.parametrize("step", [SOME, ALL])
def test_prune(template: Path, step: int) -> None:
    write_run(Store(str(template)), "two", seed=1)
    before = newest(open_labels(str(template)))
    for out in states("prune", template, step):
        store = Store(str(out))
        assert newest(open_labels(str(out))) == before
        assert listed(out, "one") in (list(URIS), []), "all of the run or nothing"
        assert verify(store) == []
        killed.COMMANDS["prune"](store)
        remove_leftovers(store, find_leftovers(store, 0))
        assert sorted(path.name for path in out.iterdir()) == ["latest.json", "runs"]
        assert [path.name for path in (out / "runs").iterdir()] == ["two"]
        assert (newest(open_labels(str(out))), verify(store)) == (before, [])


@pytest.mark.parametrize("step", [SOME, ALL])
def test_gc(template: Path, step: int) -> None:
    store = Store(str(template))
    before = newest(open_labels(str(template)))
    store.write(f"{layout.compacted_folder('one')}/{layout.fragment_name(2, 0)}", b"half a compaction")
    store.write(f"{layout.labels_folder('one')}/{layout.fragment_name(1, 9)}", b"late")
    store.write(f"{layout.manifest_folder('listing')}/part-00000.parquet", b"")
    store.write("runs/one/.1.tmp", b"half a file")
    store.write(f"{layout.REMOVED}zero/run.json", b"")
    begin_run(store, "unfinished")
    for out in states("gc", template, step):
        store = Store(str(out))
        assert newest(open_labels(str(out))) == before
        killed.COMMANDS["gc"](store)
        assert (newest(open_labels(str(out))), find_leftovers(store, 0)) == (before, [])
        assert sorted(store.names(layout.RUNS)) == ["one", "unfinished"], "what can be resumed stays"
        assert verify(store, "one") == []


@pytest.mark.parametrize("step", [SOME, ALL])
def test_relabel(template: Path, step: int) -> None:
    before = newest(open_labels(str(template)))
    for out in states("relabel", template, step):
        store = Store(str(out))
        rows = newest(open_labels(str(out)))
        is_new = rows != before
        assert {run_id for _, run_id, _ in rows} == {"new" if is_new else "one"}
        assert listed(out, "new") in ([], list(URIS)) if is_new else listed(out, "new") == []
        assert verify(store) == []
        if is_new:
            remove_leftovers(store, find_leftovers(store, 0))
        else:
            killed.COMMANDS["relabel"](store)
        assert {run_id for _, run_id, _ in newest(open_labels(str(out)))} == {"new"}
        assert (listed(out, "new"), verify(store), left(store)) == (list(URIS), [], [])


def test_publish_after_any_of_them(template: Path) -> None:
    """A run whose compaction died between the renames, or whose relabeling died after the commit, is published whole and once."""
    store = Store(str(template))
    for out in states("compact", template, 7):
        assert publish(Store(str(out)), "delta") == ["one"]
        killed.COMMANDS["compact"](Store(str(out)))
        assert publish(Store(str(out)), "delta") == []
    from deltalake import DeltaTable

    rows = DeltaTable(f"{out}/delta").to_pyarrow_table()
    assert sorted(rows["uri"].to_pylist()) == list(URIS)
    assert find_superseded(store, timedelta(0)) == []


def test_a_compaction_of_version_0_1_that_died(template: Path) -> None:
    """It had exchanged the folders, and not yet replaced `_SUCCESS`: its journal says what `labels` holds."""
    store = Store(str(template))
    before = newest(open_labels(str(template)))
    old = store.read(layout.success("one")) or b""
    success = killed.COMMANDS["compact"](store)
    assert success is not None
    store.write(layout.compaction("one"), store.read(layout.success("one")) or b"")
    store.write(layout.success("one"), old)
    assert verify(store) != []
    remove_leftovers(store, find_leftovers(store, 0))
    killed.COMMANDS["compact"](store)
    assert (newest(open_labels(str(template))), verify(store)) == (before, [])


def test_files_of_the_table_can_be_listed_at_any_time(template: Path) -> None:
    """The documented glob for readers without this package."""
    pattern = f"{template}/runs/*/labels/*.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM '{pattern}'").fetchall() == [(6,)]

"""Compaction: the same rows in fewer files; each reader sees the old ones or the new ones; a death in the middle is mended."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import LeaseError, UsageError
from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import Run
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.compact import STEPS, compact
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.ledger import fragment_names, write_fragment_file
from mlcls_ray.table.records import read_success
from mlcls_ray.table.verify import verify
from mlcls_ray.table.views import MACROS
from tests.conftest import ROOT
from tests.s3_servers import BUCKET
from tests.table.fragments import LABELS, RUN, written


def row_ids(store: Store) -> list[int]:
    return [
        row_id
        for name in fragment_names(store, RUN)
        for row_id in store.read_columns(f"{LABELS}/{name}", ["row_id"]).column(0).to_pylist()
    ]


def test_few_files_with_the_same_rows(run: Run) -> None:
    store = run.store
    commit(run.models[0], written(run, (3,), (0, 4), (2,), (1,)), seconds=1)
    before = pq.read_table(Path(store.root) / LABELS).sort_by("row_id")
    success = compact(store, RUN, rows=3)
    assert [fragment.rows for fragment in success.fragments] == [3, 2]
    assert row_ids(store) == [0, 3, 4, 1, 2], "sorted within each file"
    assert pq.read_table(Path(store.root) / LABELS).sort_by("row_id").equals(before)
    assert verify(store) == []
    assert store.names(layout.run_folder(RUN)) == sorted({*store.names(layout.run_folder(RUN))} - {"labels-compacted"})
    assert compact(store, RUN, rows=3) == success, "nothing left to do"
    assert len(open_labels(store.root).arrow()) == 5


def test_on_object_storage(run: Run, s3_endpoint: str) -> None:
    s3 = S3Options(endpoint_url=s3_endpoint)
    store = Store(f"s3://{BUCKET}/{uuid.uuid4().hex}", s3)
    local = run.store
    commit(run.models[0], written(run, (3,), (0, 4), (2,), (1,)), seconds=1)
    for folder in (layout.run_folder(RUN), layout.manifest_folder(RUN), LABELS):
        for name in local.names(folder):
            if (data := (local.read(f"{folder}/{name}") if "." in name or name == "_SUCCESS" else None)) is not None:
                store.write(f"{folder}/{name}", data)
    compact(store, RUN)
    assert row_ids(store) == [0, 1, 2, 3, 4]
    assert verify(store) == []
    assert len(open_labels(store.root, s3).arrow()) == 5


@pytest.mark.parametrize("died_after", STEPS)
def test_a_death_in_the_middle_is_mended(run: Run, died_after: str) -> None:
    store = run.store
    commit(run.models[0], written(run, (3,), (0, 4), (2,), (1,)), seconds=1)

    def die(step: str) -> None:
        if step == died_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(store, RUN, on_step=die)
    assert sorted(row_ids(store)) == [0, 1, 2, 3, 4], "the folder holds the old fragments or the new ones"
    success = compact(store, RUN)
    assert len(success.fragments) == len(fragment_names(store, RUN)) == 1
    assert verify(store) == []


READER = """
import glob, sys, time
import pyarrow.parquet as pq
counts, failures = {}, 0
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    try:
        rows = sum(pq.read_metadata(name).num_rows for name in glob.glob(sys.argv[1] + "/*.parquet"))
        counts[rows] = counts.get(rows, 0) + 1
    except FileNotFoundError:  # listed before the exchange, opened after it: loud, and not wrong
        failures += 1
print(sorted(counts), sum(counts.values()), failures)
"""


def test_readers_of_the_folder_never_see_both(run: Run) -> None:
    """A reader that lists the folder as fast as it can, while it is compacted again and again."""
    store = run.store
    commit(run.models[0], written(run, (3,), (0, 4), (2,), (1,)), seconds=1)
    folder = str(Path(store.root) / LABELS)
    reader = subprocess.Popen([sys.executable, "-c", READER, folder, "3"], stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 3
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        store.write_json(layout.success(RUN), compact(store, RUN, rows=5).model_dump(mode="json"))
        _split(store)
    output = reader.communicate()[0]
    assert output.startswith("[5] "), f"row counts that were seen, listings, listings that failed: {output}"
    assert int(output.split()[1]) > 50, output
    assert rounds > 5


def _split(store: Store) -> None:
    """One file → five, in one step, as a compaction does it."""
    success = read_success(store, RUN)
    assert success is not None
    (fragment,) = success.fragments
    table = store.read_columns(f"{LABELS}/{fragment.name}", None)
    attempt = layout.attempt_of(fragment.name) + 1
    parts = [
        write_fragment_file(
            store, layout.compacted_folder(RUN), layout.fragment_name(attempt, task), table.slice(task, 1)
        )
        for task in range(5)
    ]
    store.swap_folders(LABELS, layout.compacted_folder(RUN))
    store.write_json(layout.success(RUN), success.model_copy(update={"fragments": parts}).model_dump(mode="json"))
    store.remove_folder(layout.compacted_folder(RUN))


def test_what_cannot_be_compacted(run: Run) -> None:
    store = run.store
    with pytest.raises(UsageError, match="'r' is not committed"):
        compact(store, RUN)
    commit(run.models[0], written(run, (0, 1, 2, 3, 4)), seconds=1)
    with run_lease(store, RUN), pytest.raises(LeaseError):
        compact(store, RUN)


def test_the_newest_row_by_sql_alone(run: Run) -> None:
    """The query that docs/table.md gives to readers without this package has the package's order of rows."""
    commit(run.models[0], written(run, (0, 1, 2, 3, 4)), seconds=1)
    (query,) = re.findall(
        r'"""([^"]*read_parquet[^"]*row_number[^"]*)"""', (ROOT / "docs/table.md").read_text(encoding="utf-8")
    )
    (order,) = re.findall("ORDER BY (.*?)[)]", query)
    assert order in MACROS
    assert len(duckdb.sql(query.replace("'out/", f"'{run.store.root}/")).fetchall()) == 5

"""Compaction: the same rows in fewer files; each reader sees the old ones or the new ones; a death in the middle is mended."""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray import schema
from mlcls_ray.config import S3Options
from mlcls_ray.errors import LeaseError, UsageError
from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import Run
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.compact import STEPS, compact
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.ledger import fragment_names
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


def test_readers_of_the_folder_never_see_both(run: Run) -> None:
    """After each step a reader that lists the folder finds each row once."""
    store = run.store
    commit(run.models[0], written(run, (3,), (0, 4), (2,), (1,)), seconds=1)
    seen = []
    compact(
        store, RUN, on_step=lambda step: seen.append((step, len(fragment_names(store, RUN)), sorted(row_ids(store))))
    )
    assert seen == list(zip(STEPS, [4, 4, 4, 1], [[0, 1, 2, 3, 4]] * 4, strict=True))


def test_a_run_of_the_first_layout_is_rewritten(tmp_path: Path) -> None:
    store = Store(str(shutil.copytree(ROOT / "tests/fixtures/output_before_redesign/out", tmp_path / "out")))
    query = "SELECT uri, labels, scores, all_scores, labeled_at FROM all_rows ORDER BY uri"
    before = open_labels(store.root).sql(query).fetchall()
    for run_id in ("first", "second"):
        compact(store, run_id)
    folder = Path(store.root)
    tables = [pq.read_table(folder / layout.labels_folder(run_id)) for run_id in ("first", "second")]
    assert pa.concat_tables(tables).schema.equals(schema.LABEL_TABLE)
    assert open_labels(store.root).sql(query).fetchall() == before
    assert verify(store) == []


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

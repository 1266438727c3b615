"""Identical files are scored once: copies are found before labeling starts, and get their original's row when it is labeled.

A file whose size occurs once cannot be a copy; the others are read and hashed on the cluster. Which row is a copy of which is written
beside the manifest, so that each attempt at the run knows the same. A copy whose original could not be read, or changed meanwhile, is
labeled by itself. All joins are DuckDB's, out of core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.config import FetchOptions
from mlcls_ray.job.pools import Pools
from mlcls_ray.stages.hash import Hash
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import strip_credentials
from mlcls_ray.table import layout
from mlcls_ray.table.fragments import as_label_table
from mlcls_ray.table.ledger import Fragment, RowSet, write_fragment
from mlcls_ray.table.manifest import PART_ROWS, to_parquet
from mlcls_ray.table.views import create_view, open_database


def write_duplicates(store: Store, run_id: str, rows: int, options: FetchOptions, pools: Pools) -> int:
    """Find the copies among a manifest's rows and write them beside it; returns how many there are."""
    import ray.data  # not at the top: `label` loads Ray Data while Ray's processes start

    from mlcls_ray.job.own_ray import own_execution
    from mlcls_ray.job.source import read_manifest

    folder = layout.duplicates_folder(run_id)
    for name in store.names(folder):  # of a driver that died here
        store.remove(f"{folder}/{name}")
    with _database(store, run_id) as (database, temporary):
        alone = RowSet(rows)
        for batch in database.sql(ALONE).to_arrow_reader(PART_ROWS):
            alone.add(batch.column(0).to_numpy())
        if len(alone) == rows:
            return 0
        hashed = read_manifest(store, run_id, alone.bits, pools.block_rows).map_batches(
            Hash,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=max(pool.workers for pool in pools.pools)),
            num_cpus=pools.reading.cpus,
            fn_constructor_args=(options,),
        )
        spool = f"{temporary}/hashes.parquet"
        with pq.ParquetWriter(spool, HASHES) as writer, own_execution():
            for batch in hashed.iter_batches(batch_size=None, batch_format="pyarrow"):
                writer.write_table(batch.cast(HASHES))
        create_view(database, "hashes", [spool], HASHES)
        count = 0
        for number, batch in enumerate(database.sql(COPIES).to_arrow_reader(PART_ROWS)):
            table = pa.Table.from_batches([batch]).cast(schema.DUPLICATES)
            store.write(f"{folder}/part-{number:05d}.parquet", to_parquet(table))
            count += table.num_rows
        return count


def copy_duplicates(source: Store, target: Store, run_id: str) -> None:
    """Copy what `write_duplicates` wrote to the output of another model."""
    folder = layout.duplicates_folder(run_id)
    for name in source.names(folder):
        target.write(f"{folder}/{name}", source.read(f"{folder}/{name}") or b"")


def read_duplicates(store: Store, run_id: str, rows: int) -> RowSet:
    """Read which rows of a run are copies of another one."""
    copies = RowSet(rows)
    folder = layout.duplicates_folder(run_id)
    for name in store.names(folder):
        copies.add(store.read_columns(f"{folder}/{name}", [schema.ROW_ID]).column(0).to_numpy())
    return copies


def copy_rows(
    store: Store, run_id: str, labeled: list[Fragment], done: RowSet, attempt: int, fragment_rows: int
) -> list[Fragment]:
    """Give each copy that is not `done` the row of its original; returns the fragments that it wrote.

    Their tasks are numbered on from the fragments of the same attempt.
    """
    own = [layout.task_of(fragment.name) for fragment in labeled if layout.attempt_of(fragment.name) == attempt]
    task = max(own, default=-1) + 1
    fragments: list[Fragment] = []
    with _database(store, run_id) as (database, _):
        files = store.data_uris(layout.labels_folder(run_id), (fragment.name for fragment in labeled))
        copies = store.data_uris(layout.duplicates_folder(run_id))
        if not files or not copies:
            return []
        create_view(database, "labeled", files, schema.LABEL_TABLE)
        create_view(database, "copies", copies, schema.DUPLICATES)
        for batch in database.sql(COPIED).to_arrow_reader(fragment_rows):
            rows = _as_labels(pa.Table.from_batches([batch]))
            rows = rows.filter(~done.contains(rows.column(schema.ROW_ID).to_numpy()))
            if rows.num_rows:
                name = layout.fragment_name(attempt, task + len(fragments))
                fragments.append(write_fragment(store, run_id, name, rows))
    return fragments


@contextmanager
def _database(store: Store, run_id: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """Open DuckDB with the run's manifest as a view."""
    with open_database() as (database, temporary):
        store.register_with(database)
        create_view(database, "manifest", store.data_uris(layout.manifest_folder(run_id)), schema.MANIFEST)
        yield database, temporary


def _as_labels(rows: pa.Table) -> pa.Table:
    """Convert DuckDB's columns to the label table's."""
    uris = [strip_credentials(uri) for uri in rows.column(schema.URI).to_pylist()]
    place = rows.column_names.index(schema.URI)
    return as_label_table(rows.set_column(place, schema.URI, pa.array(uris, pa.string())))


HASHES = pa.schema([(schema.ROW_ID, pa.int64()), (schema.CONTENT_HASH, pa.string())])
ALONE = """
    SELECT row_id FROM manifest
    WHERE size_bytes IN (SELECT size_bytes FROM manifest GROUP BY 1 HAVING count(*) = 1)
      AND NOT EXISTS (SELECT 1 FROM manifest WHERE size_bytes IS NULL)
"""
COPIES = """
    SELECT row_id, original, content_hash
    FROM (SELECT *, min(row_id) OVER (PARTITION BY content_hash) AS original FROM hashes)
    WHERE row_id <> original
"""
COPIED = """
    SELECT labeled.* REPLACE (
        manifest.row_id AS row_id, manifest.uri AS uri, manifest.mtime AS mtime, manifest.etag AS etag,
        manifest.attempts + 1 AS attempts
    )
    FROM copies
    JOIN labeled ON labeled.row_id = copies.original AND labeled.content_hash = copies.content_hash
    JOIN manifest ON manifest.row_id = copies.row_id
"""

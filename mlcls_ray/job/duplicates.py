"""Identical bytes are scored once: copies are found before labeling starts, and get their original's row when it is labeled.

Files of a size that occurs once cannot be copies; the others are read and hashed on the cluster. What is a copy of what is written
down beside the manifest, so that each attempt of the run knows the same. A copy whose original could not be read, or changed
meanwhile, is labeled for itself. All joins are DuckDB's, out of core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.job.pools import Pools
from mlcls_ray.stages.hash import HashImages
from mlcls_ray.stages.read import ReadOptions
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import strip_credentials
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, RowSet, write_fragment
from mlcls_ray.table.manifest import PART_ROWS, to_parquet
from mlcls_ray.table.views import create_view, open_database


def write_duplicates(store: Store, run_id: str, rows: int, options: ReadOptions, pools: Pools) -> int:
    """Find the copies among a manifest's rows and write them beside it; returns how many there are."""
    import ray.data  # not at the top: `job` loads Ray Data while Ray's processes start

    from mlcls_ray.job.source import manifest_rows

    folder = layout.duplicates_folder(run_id)
    for name in store.names(folder):  # of a driver that died here
        store.remove(f"{folder}/{name}")
    with _database(store, run_id) as (database, temporary):
        alone = RowSet(rows)
        for batch in database.sql(ALONE).to_arrow_reader(PART_ROWS):
            alone.add(batch.column(0).to_numpy())
        if len(alone) == rows:
            return 0
        hashed = manifest_rows(store, run_id, alone.bits, pools.block_rows).map_batches(
            HashImages,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=max(pools.read_workers, pools.score_workers)),
            num_cpus=pools.read_cpus,
            fn_constructor_args=(options,),
        )
        spool = f"{temporary}/hashes.parquet"
        with pq.ParquetWriter(spool, HASHES) as writer:
            for batch in hashed.iter_batches(batch_size=None, batch_format="pyarrow"):
                writer.write_table(batch.cast(HASHES))
        count = 0
        found = database.sql(COPIES.format(spool=spool)).to_arrow_reader(PART_ROWS)
        for number, batch in enumerate(found):
            table = pa.Table.from_batches([batch]).cast(schema.DUPLICATES)
            store.write(f"{folder}/part-{number:05d}.parquet", to_parquet(table))
            count += table.num_rows
        return count


def read_duplicates(store: Store, run_id: str, rows: int) -> RowSet:
    """The rows of a run that are copies of another one."""
    found = RowSet(rows)
    folder = layout.duplicates_folder(run_id)
    for name in store.names(folder):
        found.add(store.read_columns(f"{folder}/{name}", [schema.ROW_ID]).column(0).to_numpy())
    return found


def copy_rows(
    store: Store, run_id: str, labeled: list[Fragment], done: RowSet, attempt: int, fragment_rows: int
) -> list[Fragment]:
    """Give each copy that is not `done` the row of its original; returns the fragments that were written.

    Their tasks are numbered on from the fragments of the same attempt.
    """
    own = [layout.task_of(one.name) for one in labeled if layout.attempt_of(one.name) == attempt]
    task = max(own, default=-1) + 1
    fragments: list[Fragment] = []
    with _database(store, run_id) as (database, _):
        files = store.data_uris(layout.labels_folder(run_id), (one.name for one in labeled))
        copies = store.data_uris(layout.duplicates_folder(run_id))
        if not files or not copies:
            return []
        with store.open(f"{layout.labels_folder(run_id)}/{labeled[0].name}") as stream:
            table_schema = pq.read_schema(stream).remove_metadata()
        create_view(database, "labeled", files, table_schema)
        create_view(database, "copies", copies, schema.DUPLICATES)
        for batch in database.sql(COPIED).to_arrow_reader(fragment_rows):
            rows = _as_labels(pa.Table.from_batches([batch]), table_schema)
            rows = rows.filter(~done.contains(rows.column(schema.ROW_ID).to_numpy()))
            if rows.num_rows:
                name = layout.fragment_name(attempt, task + len(fragments))
                fragments.append(write_fragment(store, run_id, name, rows))
    return fragments


@contextmanager
def _database(store: Store, run_id: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """DuckDB with the run's manifest as a view."""
    with open_database() as (database, temporary):
        store.register_with(database)
        create_view(database, "manifest", store.data_uris(layout.manifest_folder(run_id)), schema.MANIFEST)
        yield database, temporary


def _as_labels(rows: pa.Table, table_schema: pa.Schema) -> pa.Table:
    """DuckDB's columns as the label table's: it knows neither float16 nor lists of a fixed size."""
    columns = {name: rows.column(name) for name in table_schema.names}
    columns[schema.URI] = pa.chunked_array(
        [[strip_credentials(uri) for uri in rows.column(schema.URI).to_pylist()]], pa.string()
    )
    for field in table_schema:
        if pa.types.is_fixed_size_list(field.type):
            columns[field.name] = _half(rows.column(field.name).combine_chunks(), field.type.list_size)
    return pa.table([_cast(columns[field.name], field.type) for field in table_schema], schema=table_schema)


def _half(lists: pa.ListArray, size: int) -> pa.FixedSizeListArray:
    """list<float> → fixed_size_list<float16>, null where it was."""
    is_null = lists.is_null().to_numpy(zero_copy_only=False)
    values = np.zeros((len(lists), size), np.float32)
    known = lists.flatten()
    values[~is_null] = known.to_numpy(zero_copy_only=False).reshape(-1, size)
    missing = np.zeros(values.shape, bool)
    missing[~is_null] = known.is_null().to_numpy(zero_copy_only=False).reshape(-1, size)
    half = pa.array(values.astype(np.float16).ravel(), mask=missing.ravel())
    return pa.FixedSizeListArray.from_arrays(half, size, mask=pa.array(is_null))


def _cast(column: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    return column if column.type == kind else column.cast(kind)


HASHES = pa.schema([(schema.ROW_ID, pa.int64()), (schema.CONTENT_HASH, pa.string())])
ALONE = f"""
    SELECT {schema.ROW_ID} FROM manifest
    WHERE {schema.SIZE_BYTES} IN (SELECT {schema.SIZE_BYTES} FROM manifest GROUP BY 1 HAVING count(*) = 1)
      AND NOT EXISTS (SELECT 1 FROM manifest WHERE {schema.SIZE_BYTES} IS NULL)
"""
COPIES = f"""
    SELECT {schema.ROW_ID}, {schema.ORIGINAL}, {schema.CONTENT_HASH}
    FROM (SELECT *, min({schema.ROW_ID}) OVER (PARTITION BY {schema.CONTENT_HASH}) AS {schema.ORIGINAL} FROM read_parquet('{{spool}}'))
    WHERE {schema.ROW_ID} <> {schema.ORIGINAL}
"""
COPIED = f"""
    SELECT labeled.* REPLACE (
        manifest.{schema.ROW_ID} AS {schema.ROW_ID}, manifest.{schema.URI} AS {schema.URI}, manifest.{schema.MTIME} AS {schema.MTIME},
        manifest.{schema.ETAG} AS {schema.ETAG}, manifest.{schema.ATTEMPTS} + 1 AS {schema.ATTEMPTS}
    )
    FROM copies
    JOIN labeled ON labeled.{schema.ROW_ID} = copies.{schema.ORIGINAL} AND labeled.{schema.CONTENT_HASH} = copies.{schema.CONTENT_HASH}
    JOIN manifest ON manifest.{schema.ROW_ID} = copies.{schema.ROW_ID}
"""

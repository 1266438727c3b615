"""The manifest: the frozen list of a run's inputs, as Parquet parts."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout

PART_ROWS = 100_000


def write_manifest(store: Store, run_id: str, entries: Iterable[InputEntry], part_rows: int = PART_ROWS) -> int:
    """Stream the inputs into Parquet parts of at most `part_rows` rows; returns the number of rows.

    Parts left by a listing that died are removed first. Memory: one part.
    """
    folder = layout.manifest_folder(run_id)
    for name in store.names(folder):
        store.remove(f"{folder}/{name}")
    rows = 0
    for number, part in enumerate(_parts(entries, part_rows)):
        table = manifest_table(part, first_row=rows)
        store.write(f"{folder}/part-{number:05d}.parquet", to_parquet(table))
        rows += len(part)
    return rows


def copy_manifest(source: Store, store: Store, run_id: str) -> int:
    """Copy the manifest of the run of the same name in another output; returns the number of rows."""
    folder = layout.manifest_folder(run_id)
    for name in store.names(folder):
        store.remove(f"{folder}/{name}")
    for name in source.names(folder):
        store.write(f"{folder}/{name}", source.read(f"{folder}/{name}") or b"")
    return manifest_rows(store, run_id)


def to_parquet(table: pa.Table) -> bytes:
    """Encode a table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _parts(entries: Iterable[InputEntry], rows: int) -> Iterator[list[InputEntry]]:
    iterator = iter(entries)
    while part := list(islice(iterator, rows)):
        yield part


def manifest_table(entries: list[InputEntry], first_row: int) -> pa.Table:
    """Make manifest rows of inputs, numbered from `first_row`."""
    columns = {
        schema.ROW_ID: range(first_row, first_row + len(entries)),
        schema.URI: [entry.uri for entry in entries],
        schema.SIZE_BYTES: [entry.size_bytes for entry in entries],
        schema.MTIME: [entry.mtime for entry in entries],
        schema.ETAG: [entry.etag for entry in entries],
        schema.ATTEMPTS: [entry.attempts for entry in entries],
    }
    return pa.table(columns, schema=schema.MANIFEST)


def manifest_rows(store: Store, run_id: str) -> int:
    """Count the rows, from the parts' footers."""
    folder = layout.manifest_folder(run_id)
    total = 0
    for name in store.names(folder):
        with store.open(f"{folder}/{name}") as stream:
            total += pq.ParquetFile(stream).metadata.num_rows
    return total

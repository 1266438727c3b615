"""The manifest: the frozen list of a run's inputs, as Parquet parts."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from mlcls_ray import schema
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout

PART_ROWS = 100_000


class ManifestPart(BaseModel):
    """One file of a manifest, as `_SUCCESS` lists it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    sha256: str


def write_manifest(store: Store, run_id: str, entries: Iterable[InputEntry], part_rows: int = PART_ROWS) -> int:
    """Stream the inputs into Parquet parts of at most `part_rows` rows; returns the number of rows.

    Parts left by a listing that died are removed first. Memory: one part.
    """
    folder = layout.manifest_folder(run_id)
    for name in store.names(folder):
        store.remove(f"{folder}/{name}")
    parts: list[ManifestPart] = []
    rows = 0
    for number, part in enumerate(_parts(entries, part_rows)):
        parts.append(write_manifest_part(store, run_id, number, manifest_table(part, first_row=rows)))
        rows += len(part)
    write_manifest_parts(store, run_id, parts)
    return rows


def write_manifest_part(store: Store, run_id: str, number: int, table: pa.Table) -> ManifestPart:
    """Write one part of a manifest, whole or not at all."""
    name, data = f"part-{number:05d}.parquet", to_parquet(table)
    store.write(f"{layout.manifest_folder(run_id)}/{name}", data)
    return _describe(name, data, len(table))


def write_manifest_parts(store: Store, run_id: str, parts: Sequence[ManifestPart]) -> None:
    """Write down the checksums of a complete manifest, until `_SUCCESS` takes them over."""
    store.write_json(layout.manifest_parts(run_id), [part.model_dump() for part in parts])


def read_manifest_parts(store: Store, run_id: str) -> list[ManifestPart]:
    """Read the checksums of a manifest as it was written. That of a run which version 0.1 began has none: its files are read."""
    written = store.read_json(layout.manifest_parts(run_id))
    if written is not None:
        return [ManifestPart.model_validate(part) for part in written]
    folder = layout.manifest_folder(run_id)
    return [describe_manifest_part(store, run_id, name) for name in store.names(folder)]


def describe_manifest_part(store: Store, run_id: str, name: str) -> ManifestPart:
    """Describe a manifest's part that exists; it is read whole for its checksum.

    Raises:
        FileNotFoundError: the part does not exist.
        pyarrow.ArrowInvalid: the file is not Parquet.
    """
    data = store.read(f"{layout.manifest_folder(run_id)}/{name}")
    if data is None:
        raise FileNotFoundError(name)
    return _describe(name, data, pq.read_metadata(pa.BufferReader(data)).num_rows)


def _describe(name: str, data: bytes, rows: int) -> ManifestPart:
    return ManifestPart(name=name, rows=rows, sha256=hashlib.sha256(data).hexdigest())


def copy_manifest(source: Store, store: Store, run_id: str) -> int:
    """Copy the manifest of the run of the same name in another output; returns the number of rows."""
    folder = layout.manifest_folder(run_id)
    for name in store.names(folder):
        store.remove(f"{folder}/{name}")
    for name in source.names(folder):
        store.write(f"{folder}/{name}", source.read(f"{folder}/{name}") or b"")
    write_manifest_parts(store, run_id, read_manifest_parts(source, run_id))
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

"""The label table is its own ledger: the fragments of a run say which of its rows are done."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from mlcls_ray import schema
from mlcls_ray.errors import Status
from mlcls_ray.storage.store import Store, read_columns
from mlcls_ray.table import layout

REPEATING = [
    *(
        schema.STATUS, schema.ERROR_MESSAGE, schema.FORMAT, schema.MODEL, schema.MODEL_FINGERPRINT, schema.PREPROCESS_FINGERPRINT,
        schema.ENGINE, schema.PRECISION, schema.THRESHOLD_ID, schema.RUN_ID, schema.WIDTH, schema.HEIGHT, schema.LABELED_AT,
    ),
    *(f"{name}.list.element" for name in (schema.LABELS, schema.CLASS_IDS)), schema.RUN_NUMBER,
]  # fmt: skip
"""Columns that Parquet encodes with a dictionary."""
DICTIONARY_FROM = 50_000
"""Number of scores from which a dictionary makes them smaller. They are float32 with the values of float16: of these there are 15,361
from 0 to 1, so that 14 bits do. Few scores would not pay for the dictionary, and lie plain."""


class Fragment(BaseModel):
    """One file of the label table, as `_SUCCESS` lists it. `statuses` counts its rows by status."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    sha256: str
    statuses: dict[str, int]


def count_statuses(fragments: Iterable[Fragment]) -> dict[str, int]:
    """Count the rows of fragments by status."""
    counts: Counter[str] = Counter()
    for fragment in fragments:
        counts.update(fragment.statuses)
    return dict(counts)


def failures(fragments: Iterable[Fragment]) -> int:
    """Count the rows of fragments that are not `ok`."""
    return sum(fragment.rows - fragment.statuses.get(Status.OK.value, 0) for fragment in fragments)


class RowSet:
    """A set of row ids below `total`, one bit each: 125 MB for a billion."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.bits = np.zeros((total + 7) // 8, dtype=np.uint8)
        self.duplicates = 0
        """Number of ids that `add` met more than once."""
        self.out_of_range = 0
        """Number of ids that were not below `total`."""

    def add(self, row_ids: np.ndarray) -> None:
        """Add int64 ids."""
        inside = row_ids[(row_ids >= 0) & (row_ids < self.total)]
        self.out_of_range += row_ids.size - inside.size
        unique = np.unique(inside)
        self.duplicates += inside.size - unique.size + int(self.contains(unique).sum())
        np.bitwise_or.at(self.bits, unique >> 3, np.left_shift(1, unique & 7).astype(np.uint8))

    def contains(self, row_ids: np.ndarray) -> np.ndarray:
        """bool [n] for int64 ids [n] below `total`."""
        return contains(self.bits, row_ids)

    def __len__(self) -> int:
        return count_bits(self.bits)


def count_bits(bits: np.ndarray) -> int:
    """Count the bits that are set in a uint8 array."""
    return int((np.bitwise_count(bits) if hasattr(np, "bitwise_count") else np.unpackbits(bits)).sum())


def contains(bits: np.ndarray, row_ids: np.ndarray) -> np.ndarray:
    """Return whether each id's bit is set: bool [n]. Takes the bare array, which workers share through Ray's object store."""
    is_set: np.ndarray = (bits[row_ids >> 3] >> (row_ids & 7).astype(np.uint8)) & 1 == 1
    return is_set


def fragment_names(store: Store, run_id: str, folder: str | None = None) -> list[str]:
    """List the files of a run's label table, committed or not; `folder`: another one than `labels`."""
    return [name for name in store.names(folder or layout.labels_folder(run_id)) if name.endswith(".parquet")]


def read_rows(store: Store, run_id: str, names: Iterable[str], total: int) -> RowSet:
    """Collect the row ids in fragments. Reads their `row_id` column only."""
    return read_row_ids(store, (f"{layout.labels_folder(run_id)}/{name}" for name in names), total)


def read_row_ids(store: Store, paths: Iterable[str], total: int) -> RowSet:
    """Collect the row ids in fragments, given by their paths in the store."""
    rows = RowSet(total)
    for path in paths:
        rows.add(store.read_columns(path, [schema.ROW_ID]).column(0).to_numpy())
    return rows


def write_fragment(store: Store, run_id: str, name: str, table: pa.Table) -> Fragment:
    """Write one fragment of a run, whole or not at all."""
    return write_fragment_file(store, layout.labels_folder(run_id), name, table)


def write_fragment_file(store: Store, folder: str, name: str, table: pa.Table) -> Fragment:
    """Write one fragment into a folder, whole or not at all."""
    sink = io.BytesIO()
    # Minimum and maximum of scores help no reader, and cost time.
    scores = [name for name in (schema.ALL_SCORES, schema.EMBEDDING) if name in table.column_names]
    repeating = [f"{name}.list.element" for name in scores if table.column(name).nbytes >= 4 * DICTIONARY_FROM]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=100_000,
        use_dictionary=REPEATING + repeating,
        write_statistics=[name for name in table.column_names if name not in scores],
    )
    data = sink.getvalue()
    store.write(f"{folder}/{name}", data)
    return _describe(name, data, table.column(schema.STATUS))


def describe_fragment(store: Store, run_id: str, name: str) -> Fragment:
    """Describe a fragment that exists; it is read whole for its checksum.

    Raises:
        FileNotFoundError: the fragment does not exist.
        pyarrow.ArrowInvalid: the file is not Parquet.
    """
    return describe_file(store, f"{layout.labels_folder(run_id)}/{name}")


def describe_file(store: Store, path: str) -> Fragment:
    """Describe a fragment by its path in the store; raises as `describe_fragment`."""
    data = store.read(path)
    if data is None:
        raise FileNotFoundError(path)
    return _describe(path.rpartition("/")[2], data, read_columns(pa.BufferReader(data), [schema.STATUS]).column(0))


def _describe(name: str, data: bytes, statuses: pa.ChunkedArray) -> Fragment:
    counts = {entry["values"]: entry["counts"] for entry in statuses.value_counts().to_pylist()}
    return Fragment(
        name=name, rows=len(statuses), sha256=hashlib.sha256(data).hexdigest(), statuses=dict(sorted(counts.items()))
    )

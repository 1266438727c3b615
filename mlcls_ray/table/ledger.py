"""The label table is its own ledger: which rows of a run are done is read off its fragments."""

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
    *(f"{name}.list.element" for name in (schema.LABELS, schema.CLASS_IDS)),
]  # fmt: skip
"""Columns that Parquet keeps as a dictionary. On `all_scores` one would save 4 % of its bytes, and read six times as slowly."""


class Fragment(BaseModel):
    """One committed file of the label table, as `_SUCCESS` lists it. `statuses` counts its rows by status."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    sha256: str
    statuses: dict[str, int]


def count_statuses(fragments: Iterable[Fragment]) -> dict[str, int]:
    """How many rows of the fragments have each status."""
    counts: Counter[str] = Counter()
    for fragment in fragments:
        counts.update(fragment.statuses)
    return dict(counts)


def failures(fragments: Iterable[Fragment]) -> int:
    """How many rows of these fragments are not `ok`."""
    return sum(fragment.rows - fragment.statuses.get(Status.OK.value, 0) for fragment in fragments)


class RowSet:
    """A set of row ids below `total`, one bit each: 125 MB for a billion."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.bits = np.zeros((total + 7) // 8, dtype=np.uint8)
        self.duplicates = 0
        self.out_of_range = 0
        """How many ids `add` met a second time, and how many were not below `total`."""

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
    """How many bits are set in a uint8 array."""
    return int((np.bitwise_count(bits) if hasattr(np, "bitwise_count") else np.unpackbits(bits)).sum())


def contains(bits: np.ndarray, row_ids: np.ndarray) -> np.ndarray:
    """Whether each id's bit is set: bool [n]. On the bare array, so that workers share it through the object store."""
    is_set: np.ndarray = (bits[row_ids >> 3] >> (row_ids & 7).astype(np.uint8)) & 1 == 1
    return is_set


def fragment_names(store: Store, run_id: str) -> list[str]:
    return [name for name in store.names(layout.labels_folder(run_id)) if name.endswith(".parquet")]


def read_rows(store: Store, run_id: str, names: Iterable[str], total: int) -> RowSet:
    """The rows in the given fragments, from their `row_id` column alone."""
    rows = RowSet(total)
    for name in names:
        column = store.read_columns(f"{layout.labels_folder(run_id)}/{name}", [schema.ROW_ID]).column(0)
        rows.add(column.to_numpy())
    return rows


def write_fragment(store: Store, run_id: str, name: str, table: pa.Table) -> Fragment:
    """Write one fragment of a run, whole or not at all."""
    return write_fragment_file(store, layout.labels_folder(run_id), name, table)


def write_fragment_file(store: Store, folder: str, name: str, table: pa.Table) -> Fragment:
    """Write one fragment into a folder, whole or not at all."""
    sink = io.BytesIO()
    # Least and greatest of a float16 help nobody, and cost a fifth of the writing.
    compared = [name for name in table.column_names if name not in (schema.ALL_SCORES, schema.EMBEDDING)]
    pq.write_table(
        table, sink, compression="zstd", row_group_size=100_000, use_dictionary=REPEATING, write_statistics=compared
    )
    data = sink.getvalue()
    store.write(f"{folder}/{name}", data)
    return _describe(name, data, table.column(schema.STATUS))


def describe_fragment(store: Store, run_id: str, name: str) -> Fragment:
    """A fragment that is there already, read whole for its checksum.

    Raises:
        FileNotFoundError: it is not there.
        pyarrow.ArrowInvalid: it is not a Parquet file.
    """
    data = store.read(f"{layout.labels_folder(run_id)}/{name}")
    if data is None:
        raise FileNotFoundError(name)
    return _describe(name, data, read_columns(pa.BufferReader(data), [schema.STATUS]).column(0))


def _describe(name: str, data: bytes, statuses: pa.ChunkedArray) -> Fragment:
    counts = {one["values"]: one["counts"] for one in statuses.value_counts().to_pylist()}
    return Fragment(
        name=name, rows=len(statuses), sha256=hashlib.sha256(data).hexdigest(), statuses=dict(sorted(counts.items()))
    )

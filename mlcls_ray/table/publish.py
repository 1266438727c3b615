"""Tables in other formats: each committed run is one atomic commit of a Delta, Iceberg or Lance table at OUT/<format>.

The Parquet fragments stay what resuming and incremental runs go by; a table is made from them, and a run that it has already is left
alone. So a driver that dies between the two is made good by the next run, or by `mlcls publish`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlcls_ray.config import TableFormat
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.lease import held_lease
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.records import read_success

MODULES = {"delta": "deltalake", "iceberg": "pyiceberg", "lance": "lance"}


class RunRows(NamedTuple):
    """What a run adds to a table: its rows in their published form, a fragment at a time."""

    run_id: str
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.schema, self.batches)


class Table(Protocol):
    """A table in one format. One format, one file."""

    def has(self, run_id: str) -> bool:
        """Whether a commit of the table holds the run."""

    def append(self, rows: RunRows) -> None:
        """Add the run in one commit."""


def check_format(kind: TableFormat) -> None:
    """Raises:
    UsageError: the format's package is not installed.
    """
    if kind != "parquet" and find_spec(MODULES[kind]) is None:
        raise UsageError(f"format {kind} needs the extra '{kind}': pip install 'mlcls-ray[{kind}]'")


def publish(store: Store, kind: TableFormat) -> list[str]:
    """Add the committed runs that the table lacks, oldest first; returns which.

    Raises:
        UsageError: the format's package is not installed.
        LeaseError: another process works on one of the runs.
    """
    if kind == "parquet":
        return []
    check_format(kind)
    table = open_table(store, kind)
    committed = [success for name in store.names(layout.RUNS) if (success := read_success(store, name))]
    added = []
    for success in sorted(committed, key=lambda success: success.committed_at):
        if not success.rows or table.has(success.run_id):
            continue
        with held_lease(store, success.run_id):
            names = [f"{layout.labels_folder(success.run_id)}/{fragment.name}" for fragment in success.fragments]
            with store.open(names[0]) as stream:
                published = published_schema(pq.read_schema(stream))
            table.append(RunRows(success.run_id, published, _batches(store, names, published)))
        added.append(success.run_id)
    return added


def open_table(store: Store, kind: TableFormat) -> Table:
    if kind == "delta":
        from mlcls_ray.table.formats.delta import DeltaLabels

        return DeltaLabels(store)
    if kind == "iceberg":
        from mlcls_ray.table.formats.iceberg import IcebergLabels

        return IcebergLabels(store)
    from mlcls_ray.table.formats.lance import LanceLabels

    return LanceLabels(store)


def published_schema(fragment: pa.Schema) -> pa.Schema:
    """What all three formats can hold: int16 becomes int32, float16 float32, and lists have no fixed size (two models have as many
    classes each as they like).
    """
    return pa.schema([pa.field(field.name, _published(field.type), field.nullable) for field in fragment])


def _published(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_published(kind.value_type))
    widened = {pa.int16(): pa.int32(), pa.float16(): pa.float32()}
    return widened.get(kind, kind)


def _batches(store: Store, names: list[str], published: pa.Schema) -> Iterator[pa.RecordBatch]:
    for name in names:
        rows = store.read_columns(name, None).combine_chunks()
        for place, field in enumerate(rows.schema):
            if pa.types.is_fixed_size_list(field.type):
                rows = rows.set_column(place, published.field(field.name), widened_scores(rows.column(place)))
        yield from rows.cast(published).to_batches()


def widened_scores(scores: pa.FixedSizeListArray | pa.ChunkedArray) -> pa.ListArray:
    """fixed_size_list<float16> → list<float32>, null where it was."""
    whole = pa.concat_arrays(scores.chunks) if isinstance(scores, pa.ChunkedArray) else scores
    lengths = pa.array([0 if one else whole.type.list_size for one in whole.is_null().to_pylist()], pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    return pa.ListArray.from_arrays(offsets, whole.flatten().cast(pa.float32()), mask=whole.is_null())

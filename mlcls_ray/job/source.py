"""The manifest as a Ray dataset."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import contains
from mlcls_ray.table.manifest import read_manifest_parts

ROW_BYTES = 150
"""A row of a manifest in memory, mostly its uri; an estimate."""


class ManifestSource(Datasource):
    """The parts of a manifest, one read task for each.

    Ray's own reader of Parquet reads the first rows in a task before it plans anything: no worker starts before another one has started
    and imported Ray Data. What it looks for, rows and sizes, is known here.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        super().__init__()
        self.store = store
        self.run_id = run_id
        self.parts = read_manifest_parts(store, run_id)

    def estimate_inmemory_data_size(self) -> int:
        return sum(part.rows for part in self.parts) * ROW_BYTES

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                partial(read_part, self.store, f"{layout.manifest_folder(self.run_id)}/{part.name}"),
                BlockMetadata(num_rows=part.rows, size_bytes=part.rows * ROW_BYTES, input_files=None, exec_stats=None),
                schema.MANIFEST,
                per_task_row_limit,
            )
            for part in self.parts
        ]


def read_part(store: Store, path: str) -> Iterator[pa.Table]:
    """Read one part of a manifest."""
    yield store.read_columns(path, schema.MANIFEST.names)


def read_manifest(store: Store, run_id: str, skip: np.ndarray, block_rows: int) -> ray.data.Dataset:
    """Read a manifest without the rows whose bit in `skip` (uint8) is set, cut into blocks that spread over the workers."""
    rows = ray.data.read_datasource(ManifestSource(store, run_id))
    if skip.any():
        rows = rows.map_batches(drop, batch_format="pyarrow", fn_kwargs={"skip": ray.put(skip)})
    # A manifest is small in bytes, so that Ray would make one block, one task and one fragment of it.
    return rows.repartition(target_num_rows_per_block=block_rows)


def drop(manifest: pa.Table, skip: ray.ObjectRef) -> pa.Table:
    """Keep the rows whose bit is not set. `skip` is shared through the object store."""
    return manifest.filter(~contains(ray.get(skip), manifest.column(schema.ROW_ID).to_numpy()))

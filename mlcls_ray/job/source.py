"""The manifest as a Ray dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray
import ray.data

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import contains


def manifest_rows(store: Store, run_id: str, skipped: np.ndarray, block_rows: int) -> ray.data.Dataset:
    """The rows of a manifest without those whose bit in `skipped` is set, cut into blocks that spread over the workers."""
    path, filesystem = store.data_path(layout.manifest_folder(run_id))
    with _older_reader():
        rows = ray.data.read_parquet(path, filesystem=filesystem)
    if skipped.any():
        rows = rows.map_batches(drop, batch_format="pyarrow", fn_kwargs={"skipped": ray.put(skipped)})
    # A manifest is small in bytes, so that Ray would make one block, one task and one fragment of it.
    return rows.repartition(target_num_rows_per_block=block_rows)


@contextlib.contextmanager
def _older_reader() -> Iterator[None]:
    """Ray's newer reader starts actors of its own to read the footers of a few small files: two seconds a run."""
    context = ray.data.DataContext.get_current()
    before, context.use_datasource_v2 = context.use_datasource_v2, False
    try:
        yield
    finally:
        context.use_datasource_v2 = before


def drop(manifest: pa.Table, skipped: ray.ObjectRef) -> pa.Table:
    """The rows whose bit is not set. `skipped` is shared through the object store."""
    return manifest.filter(~contains(ray.get(skipped), manifest.column(schema.ROW_ID).to_numpy()))

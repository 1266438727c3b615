"""The manifest as a Ray dataset."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import ray
import ray.data

from mlcls_ray import schema
from mlcls_ray.job.ray_private import first_parquet_reader
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import contains


def read_manifest(store: Store, run_id: str, skip: np.ndarray, block_rows: int) -> ray.data.Dataset:
    """Read a manifest without the rows whose bit in `skip` (uint8) is set, cut into blocks that spread over the workers."""
    path, filesystem = store.data_path(layout.manifest_folder(run_id))
    with first_parquet_reader():
        rows = ray.data.read_parquet(path, filesystem=filesystem)
    if skip.any():
        rows = rows.map_batches(drop, batch_format="pyarrow", fn_kwargs={"skip": ray.put(skip)})
    # A manifest is small in bytes, so that Ray would make one block, one task and one fragment of it.
    return rows.repartition(target_num_rows_per_block=block_rows)


def drop(manifest: pa.Table, skip: ray.ObjectRef) -> pa.Table:
    """Keep the rows whose bit is not set. `skip` is shared through the object store."""
    return manifest.filter(~contains(ray.get(skip), manifest.column(schema.ROW_ID).to_numpy()))

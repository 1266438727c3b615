"""Apache Iceberg. The catalog of a local output is a SQLite file beside the table; other outputs use pyiceberg's catalog `mlcls`."""

from __future__ import annotations

import os

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchTableError

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table.formats.base import RunRows

NAME = "iceberg"
CATALOG, TABLE = "mlcls", ("mlcls", "labels")
RUN = "mlcls.run-id"
"""Name of the snapshot property that holds the run id."""


class IcebergLabels:
    """The table `mlcls.labels`. Of a local output: in OUT/iceberg, with its catalog in `catalog.db` there."""

    def __init__(self, store: Store) -> None:
        """Raises:
        UsageError: the output is not local, and pyiceberg has no catalog `mlcls`.
        """
        self.catalog = _catalog(store)
        self.catalog.create_namespace_if_not_exists(TABLE[0])

    def has(self, run_id: str) -> bool:
        try:
            snapshots = self.catalog.load_table(TABLE).snapshots()
        except NoSuchTableError:
            return False
        summaries = [snapshot.summary for snapshot in snapshots if snapshot.summary is not None]
        return any(summary.additional_properties.get(RUN) == run_id for summary in summaries)

    def append(self, rows: RunRows) -> None:
        table = self.catalog.create_table_if_not_exists(TABLE, rows.schema)
        if not set(rows.schema.names) <= set(table.schema().column_names):  # a table that version 0.1 began
            with table.update_schema() as columns:
                columns.union_by_name(rows.schema)
        with table.transaction() as transaction:
            for batch in rows.batches:
                transaction.append(pa.Table.from_batches([batch], rows.schema), snapshot_properties={RUN: rows.run_id})


def _catalog(store: Store) -> Catalog:
    if store.is_local:
        folder = store.full_uri(NAME)
        os.makedirs(folder, exist_ok=True)
        return load_catalog(CATALOG, type="sql", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    try:
        return load_catalog(CATALOG)
    except ValueError as error:
        raise UsageError(
            f"format iceberg: '{store.root}' needs a catalog that all readers reach; describe it to pyiceberg as '{CATALOG}' "
            f"(~/.pyiceberg.yaml or PYICEBERG_CATALOG__MLCLS__URI): {error}"
        ) from None

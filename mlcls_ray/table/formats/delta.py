"""Delta Lake, local or on s3://. A run is one transaction of the application `mlcls/RUN_ID`, which Delta itself records."""

from __future__ import annotations

from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from mlcls_ray.storage.store import Store
from mlcls_ray.table.formats.base import RunRows, storage_options

NAME = "delta"


class DeltaLabels:
    """The table at OUT/delta."""

    def __init__(self, store: Store) -> None:
        self.uri = store.full_uri(NAME)
        self.options = storage_options(store)

    def has(self, run_id: str) -> bool:
        if not DeltaTable.is_deltatable(self.uri, storage_options=self.options):
            return False
        return DeltaTable(self.uri, storage_options=self.options).transaction_version(f"mlcls/{run_id}") is not None

    def append(self, rows: RunRows) -> None:
        properties = CommitProperties(
            custom_metadata={"run_id": rows.run_id}, app_transactions=[Transaction(f"mlcls/{rows.run_id}", 1)]
        )
        write_deltalake(
            self.uri,
            rows.reader(),
            mode="append",
            schema_mode="merge",
            storage_options=self.options,
            commit_properties=properties,
        )

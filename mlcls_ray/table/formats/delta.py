"""Delta Lake. A run is one transaction of the application `mlcls/RUN_ID`, which Delta itself records; local or s3://."""

from __future__ import annotations

from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from mlcls_ray.storage.store import Store
from mlcls_ray.table.publish import RunRows

NAME = "delta"


class DeltaLabels:
    """The table at OUT/delta."""

    def __init__(self, store: Store) -> None:
        self.uri = store.data_uri(NAME)
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


def storage_options(store: Store) -> dict[str, str] | None:
    """What Rust's object store is told, which reads AWS_* variables but no profiles; None for a local store."""
    if store.is_local:
        return None
    s3 = store.s3
    told = {
        "aws_endpoint": s3.endpoint_url,
        "aws_region": s3.region,
        "aws_allow_http": "true" if (s3.endpoint_url or "").startswith("http://") else None,
        "aws_skip_signature": "true" if s3.anonymous else None,
    }
    return {name: value for name, value in told.items() if value}

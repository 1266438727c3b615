"""The protocol of a table format, and what its implementations share.

To add a format: write its file with a class like `Table`, and name it in `registry.TABLE_FORMATS`. Its extra has the format's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import pyarrow as pa

from mlcls_ray.storage.store import Store


class RunRows(NamedTuple):
    """The rows that a run adds to a table, in their published form, a fragment at a time."""

    run_id: str
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.schema, self.batches)


class Table(Protocol):
    """The label table of one output in one format. Constructing it with the output's store opens it."""

    def has(self, run_id: str) -> bool:
        """Return whether a commit of the table holds the run."""

    def append(self, rows: RunRows) -> None:
        """Add a run in one commit."""


def storage_options(store: Store) -> dict[str, str] | None:
    """Return the options of Rust's `object_store`, which reads AWS_* variables but no profiles; None for a local store."""
    if store.is_local:
        return None
    s3 = store.s3
    options = {
        "aws_endpoint": s3.endpoint_url,
        "aws_region": s3.region,
        "aws_allow_http": "true" if (s3.endpoint_url or "").startswith("http://") else None,
        "aws_skip_signature": "true" if s3.anonymous else None,
    }
    return {name: value for name, value in options.items() if value}

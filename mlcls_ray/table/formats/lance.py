"""Lance, local or on s3://. A write is one commit, so a table with one row of a run has all of them."""

from __future__ import annotations

import lance
import pyarrow as pa

from mlcls_ray.storage.store import Store
from mlcls_ray.table.formats.base import RunRows, storage_options
from mlcls_ray.table.sql import quoted

NAME = "lance"


class LanceLabels:
    """The data set at OUT/lance."""

    def __init__(self, store: Store) -> None:
        self.uri = store.full_uri(NAME)
        self.options = storage_options(store)

    def has(self, run_id: str) -> bool:
        if not self._exists():
            return False
        rows: int = lance.dataset(self.uri, storage_options=self.options).count_rows(f"run_id = {quoted(run_id)}")
        return rows > 0

    def append(self, rows: RunRows) -> None:
        mode = "append" if self._exists() else "create"
        if mode == "append":
            table = lance.dataset(self.uri, storage_options=self.options)
            missing = [field for field in rows.schema if field.name not in table.schema.names]
            if missing:  # a table that version 0.1 began
                table.add_columns(pa.schema(missing))
        lance.write_dataset(rows.reader(), self.uri, mode=mode, storage_options=self.options)

    def _exists(self) -> bool:
        try:
            lance.dataset(self.uri, storage_options=self.options)
        except (ValueError, OSError):  # Lance's way to say that there is no data set
            return False
        return True

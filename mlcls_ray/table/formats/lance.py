"""Lance. A write is one commit; what has a row of a run has all of them."""

from __future__ import annotations

import lance

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table.formats.delta import storage_options
from mlcls_ray.table.publish import RunRows
from mlcls_ray.table.views import quoted

NAME = "lance"


class LanceLabels:
    """The data set at OUT/lance."""

    def __init__(self, store: Store) -> None:
        self.uri = store.data_uri(NAME)
        self.options = storage_options(store)

    def has(self, run_id: str) -> bool:
        return (
            self._exists()
            and lance.dataset(self.uri, storage_options=self.options).count_rows(f"{schema.RUN_ID} = {quoted(run_id)}")
            > 0
        )

    def append(self, rows: RunRows) -> None:
        mode = "append" if self._exists() else "create"
        lance.write_dataset(rows.reader(), self.uri, mode=mode, storage_options=self.options)

    def _exists(self) -> bool:
        try:
            lance.dataset(self.uri, storage_options=self.options)
        except (ValueError, OSError):  # how it says that there is none
            return False
        return True

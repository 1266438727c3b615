"""The sink: rows of the label table → fragments. They count once `_SUCCESS` lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
from ray.data import Datasink
from ray.data.block import Block
from ray.data.datasource import WriteResult

from mlcls_ray.stages.spec import model_rows
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, write_fragment

Fragments = dict[str, list[Fragment]]
"""By the name of the model."""


class LabelSink(Datasink[dict[str, Fragment]]):
    """Writes one fragment per write task and model, named after attempt and task: a task that Ray runs again replaces its own files."""

    def __init__(self, stores: Mapping[str, Store], run_id: str, attempt: int, rows_per_fragment: int) -> None:
        """`stores`: the output of each model, by the model's name."""
        self.stores = stores
        self.run_id = run_id
        self.attempt = attempt
        self.rows_per_fragment = rows_per_fragment
        self.fragments: Fragments = {name: [] for name in stores}
        """Filled on the driver when all tasks are done."""

    @property
    def min_rows_per_write(self) -> int:
        return self.rows_per_fragment

    def write(self, blocks: Iterable[Block], ctx: object) -> dict[str, Fragment]:
        tables = [block for block in blocks if isinstance(block, pa.Table) and block.num_rows]
        if not tables:
            return {}
        fragment = layout.fragment_name(self.attempt, ctx.task_idx)  # type: ignore[attr-defined]
        rows = pa.concat_tables(tables)
        return {
            model: write_fragment(store, self.run_id, fragment, model_rows(rows, model))
            for model, store in self.stores.items()
        }

    def on_write_complete(self, write_result: WriteResult[dict[str, Fragment]]) -> None:
        for fragments in write_result.write_returns:
            for model, fragment in fragments.items():
                self.fragments[model].append(fragment)

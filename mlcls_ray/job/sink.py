"""The sink: rows of the label table → committed fragments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
from ray.data import Datasink
from ray.data.block import Block
from ray.data.datasource import WriteResult

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, write_fragment


class LabelSink(Datasink[list[Fragment]]):
    """One fragment per write task and model, named after attempt and task: a task that Ray runs again replaces its own files."""

    def __init__(self, stores: Sequence[Store], run_id: str, attempt: int, rows_per_fragment: int) -> None:
        """`stores`: one a model, in the order of `schema.join_models`."""
        self.stores = stores
        self.run_id = run_id
        self.attempt = attempt
        self.rows_per_fragment = rows_per_fragment
        self.fragments: list[list[Fragment]] = [[] for _ in stores]
        """Of each model; filled on the driver when all tasks are done."""

    @property
    def min_rows_per_write(self) -> int:
        return self.rows_per_fragment

    def write(self, blocks: Iterable[Block], ctx: object) -> list[Fragment]:
        tables = [block for block in blocks if isinstance(block, pa.Table) and block.num_rows]
        if not tables:
            return []
        name = layout.fragment_name(self.attempt, ctx.task_idx)  # type: ignore[attr-defined]
        rows = schema.split_models(pa.concat_tables(tables), len(self.stores))
        return [write_fragment(store, self.run_id, name, part) for store, part in zip(self.stores, rows, strict=True)]

    def on_write_complete(self, write_result: WriteResult[list[Fragment]]) -> None:
        written = [fragments for fragments in write_result.write_returns if fragments]
        if written:
            self.fragments = [list(of_model) for of_model in zip(*written, strict=True)]

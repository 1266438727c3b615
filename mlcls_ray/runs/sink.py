"""The sink: rows of the label table → committed fragments."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from ray.data import Datasink
from ray.data.block import Block
from ray.data.datasource import WriteResult

from mlcls_ray.storage import layout
from mlcls_ray.storage.ledger import Fragment, write_fragment
from mlcls_ray.storage.store import Store


class LabelSink(Datasink[Fragment | None]):
    """One fragment per write task, named after attempt and task: a task that Ray runs again replaces its own file."""

    def __init__(self, store: Store, run_id: str, attempt: int, rows_per_fragment: int) -> None:
        self.store = store
        self.run_id = run_id
        self.attempt = attempt
        self.rows_per_fragment = rows_per_fragment
        self.fragments: list[Fragment] = []
        """Filled on the driver when all tasks are done."""

    @property
    def min_rows_per_write(self) -> int:
        return self.rows_per_fragment

    def write(self, blocks: Iterable[Block], ctx: object) -> Fragment | None:
        tables = [block for block in blocks if isinstance(block, pa.Table) and block.num_rows]
        if not tables:
            return None
        name = layout.fragment_name(self.attempt, ctx.task_idx)  # type: ignore[attr-defined]
        return write_fragment(self.store, self.run_id, name, pa.concat_tables(tables))

    def on_write_complete(self, write_result: WriteResult[Fragment | None]) -> None:
        self.fragments = [fragment for fragment in write_result.write_returns if fragment is not None]

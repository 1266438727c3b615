"""Outputs of many nights, written without Ray and without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import write_fragment
from mlcls_ray.table.manifest import write_manifest
from mlcls_ray.table.records import RunRecord, Success, make_visible, next_number
from tests.explore.browse.many import label_rows
from tests.table.outputs import write_record

CLASSES = ("boat", "cat", "dog", "otter")
ROWS = 300
"""Rows of a fragment."""


def usual_scores(count: int, seed: int, classes: int = len(CLASSES)) -> np.ndarray:
    """float32 [n, C]: a third of the images or fewer have each label."""
    return (np.random.default_rng(seed).random((count, classes)) ** np.arange(2, classes + 2)).astype(np.float32)


def write_night(
    out: str,
    run_id: str,
    scores: np.ndarray,
    *,
    classes: Sequence[str] = CLASSES,
    threshold: float = 0.5,
    failed: tuple[str, ...] = (),
    attempts: int = 1,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> Success:
    """Write a committed run of new images with these scores, and after them one input for each status in `failed`.

    `attempts` is of the failed ones. `changes` are of the run's record.
    """
    store = Store(out)
    count = len(scores) + len(failed)
    uris = [f"/photos/{run_id}/{number}.jpg" for number in range(count)]
    rows = write_manifest(store, run_id, (InputEntry(uri, 100) for uri in uris))
    record = write_record(store, run_id, next_number(store), rows, dict.fromkeys(classes, threshold), config or {})
    record = record.model_copy(update={"threshold_id": f"{threshold:g}", **changes})
    store.write_json(layout.run_json(run_id), record.model_dump(mode="json"))
    table = _rows(uris, record, scores, failed, attempts) if count else schema.LABEL_TABLE.empty_table()
    kept = record.config.get("all_scores", "all")
    if kept != "all":
        table = table.set_column(
            table.column_names.index("all_scores"),
            schema.LABEL_TABLE.field("all_scores"),
            _kept(table.column("all_scores"), record.config.get("top_k", 0)),
        )
    fragments = [
        write_fragment(store, run_id, layout.fragment_name(1, task), table.slice(first, ROWS))
        for task, first in enumerate(range(0, count, ROWS))
    ]
    return make_visible(store, run_id, fragments, seconds=1.0)


def _rows(
    uris: Sequence[str], record: RunRecord, scores: np.ndarray, failed: tuple[str, ...], attempts: int
) -> pa.Table:
    """`label_rows` makes one row in a thousand `missing`: of these there is none here but those that are asked for."""
    padded = np.vstack([scores, np.zeros((len(failed), scores.shape[1]), np.float32)])
    parts = [
        label_rows(uris[first : first + 999], 0, record, padded[first : first + 999])
        for first in range(0, len(uris), 999)
    ]
    rows = pa.concat_tables(parts)
    is_ok = np.arange(len(uris)) < len(scores)
    columns = {"row_id": pa.array(np.arange(len(uris)))}
    if failed:
        columns["status"] = pa.array(["ok"] * len(scores) + list(failed))
        columns["error_message"] = pa.array(
            [None] * len(scores) + [f"'{uri}' at byte {number}" for number, uri in enumerate(uris[len(scores) :])]
        )
        columns["attempts"] = pa.array([1] * len(scores) + [attempts] * len(failed), pa.int16())
        for name in ("labels", "class_ids", "scores", "all_scores"):
            kind = schema.LABEL_TABLE.field(name).type
            values = [value if ok else None for value, ok in zip(rows.column(name).to_pylist(), is_ok, strict=True)]
            columns[name] = pa.array(values, kind)
    arrays = [columns.get(field.name, rows.column(field.name)) for field in schema.LABEL_TABLE]
    return pa.table(arrays, schema=schema.LABEL_TABLE)


def _kept(column: pa.ChunkedArray, top_k: int) -> pa.Array:
    """Keep the highest scores only; of none, no list is left."""
    if not top_k:
        return schema.no_scores(len(column))
    rows = [
        None if row is None else [score if score in sorted(row)[-top_k:] else None for score in row]
        for row in column.to_pylist()
    ]
    return pa.array(rows, pa.list_(pa.float32()))

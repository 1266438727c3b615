"""A run without Ray: its plan, and fragments written by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mlcls_ray.job.plan import Plan
from mlcls_ray.stages.select import Provenance, SelectLabels
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, write_fragment

RUN = "r"
LABELS = layout.labels_folder(RUN)


def rows(*row_ids: int) -> pa.Table:
    """Error rows are enough for a label table."""
    count = len(row_ids)

    def objects(value: str) -> np.ndarray:
        return np.array([value] * count, dtype=object)

    unknown = np.full(count, -1, np.int32)
    batch = {
        "row_id": np.array(row_ids, dtype=np.int64),
        "uri": np.array([f"/{row_id}.jpg" for row_id in row_ids], dtype=object),
        "status": objects("empty"), "error_message": objects("0 bytes"), "attempts": np.ones(count, np.int16),
        "width": unknown, "height": unknown, "format": objects(""), "size_bytes": unknown,
        "mtime": np.full(count, np.datetime64("NaT", "us")), "etag": objects(""), "content_hash": objects(""),
        "all_scores": np.zeros((count, 3), np.float32),
    }  # fmt: skip
    return SelectLabels(("a", "b", "c"), np.ones(3), Provenance(*["-"] * 7), "all", 1)(batch)


def written(plan: Plan, *fragments: tuple[int, ...]) -> list[Fragment]:
    store = plan.prepared.store
    return [
        write_fragment(store, RUN, layout.fragment_name(plan.attempt.number, task), rows(*ids))
        for task, ids in enumerate(fragments)
    ]

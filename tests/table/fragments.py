"""A run without Ray: its plan, and fragments written by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mlcls_ray.job.plan import Run
from mlcls_ray.stages.score import Scores, as_struct
from mlcls_ray.stages.select import Select
from mlcls_ray.stages.spec import Provenance, model_column, model_rows
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, write_fragment
from tests.stages.specs import model_spec, run_spec

RUN = "r"
LABELS = layout.labels_folder(RUN)


def rows(*row_ids: int, provenance: Provenance | None = None) -> pa.Table:
    """Rows of the label table; error rows are enough."""
    count = len(row_ids)

    def objects(value: str) -> np.ndarray:
        return np.array([value] * count, dtype=object)

    unknown = np.full(count, -1, np.int32)
    status, message = objects("empty"), objects("0 bytes")
    batch = {
        "row_id": np.array(row_ids, dtype=np.int64),
        "uri": np.array([f"/{row_id}.jpg" for row_id in row_ids], dtype=object),
        "status": status, "error_message": message, "attempts": np.ones(count, np.int16),
        "width": unknown, "height": unknown, "format": objects(""), "size_bytes": unknown,
        "mtime": np.full(count, np.datetime64("NaT", "us")), "etag": objects(""), "content_hash": objects(""),
        model_column("m"): as_struct(Scores(status, message, np.zeros((count, 3), np.float32))),
    }  # fmt: skip
    spec = model_spec("m")
    made = spec if provenance is None else spec._replace(provenance=provenance._replace(model="m"))
    table = model_rows(Select(run_spec(made))(batch), "m")
    if provenance is None:
        return table
    place = table.schema.get_field_index("model")
    return table.set_column(place, table.schema.field(place), pa.array([provenance.model] * count))


def written(run: Run, *fragments: tuple[int, ...]) -> list[Fragment]:
    """Write fragments of so many row ids as the run's attempt would."""
    record = run.models[0].record
    provenance = Provenance(
        record.model,
        record.model_fingerprint,
        record.preprocess_fingerprint,
        record.engine.engine,
        record.engine.precision,
        record.threshold_id,
        record.run_id,
        record.number,
    )
    return [
        write_fragment(run.store, RUN, layout.fragment_name(run.attempt, task), rows(*ids, provenance=provenance))
        for task, ids in enumerate(fragments)
    ]

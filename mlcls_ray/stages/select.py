"""Select: scores → labels, as rows of the label table."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import ClassVar

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.errors import Status
from mlcls_ray.labels.select import Selection, keep_top, round_beside, select
from mlcls_ray.stages.score import Scores, from_struct
from mlcls_ray.stages.spec import Batch, ModelSpec, RunSpec, model_column
from mlcls_ray.storage.uris import strip_credentials


class Select:
    """A batch with a struct column of scores for each model → a table with a struct column of label table rows for each model (Arrow).

    `image_bytes`, where the batch has it, is carried on for `Annotate`.
    """

    uses_device: ClassVar[bool] = False

    def __init__(self, spec: RunSpec) -> None:
        self.models = spec.models
        self.all_scores = spec.job.all_scores
        self.top_k = spec.job.top_k
        self.seconds: dict[str, float] = {}

    def __call__(self, batch: Batch) -> pa.Table:
        common = common_columns(batch)
        columns: dict[str, pa.Array] = {
            model_column(model.name): self.select(model, from_struct(batch[model_column(model.name)]), common)
            for model in self.models
        }
        if schema.IMAGE_BYTES in batch:
            columns[schema.IMAGE_BYTES] = pa.array(batch[schema.IMAGE_BYTES], type=pa.large_binary())
        return pa.table(columns)

    def select(self, model: ModelSpec, scores: Scores, common: dict[str, pa.Array]) -> pa.StructArray:
        """Make one model's rows of the label table. `common`: the columns that all models share."""
        is_ok = scores.status == Status.OK.value
        groups = model.label_map.groups if model.label_map else None
        selection = select(np.where(is_ok[:, None], scores.scores, 0), model.thresholds, groups)
        kept = scores.scores if groups is None else round_beside(scores.scores, model.thresholds)
        labels = pa.array(model.label_names, pa.string()).take(pa.array(selection.class_ids))
        count = len(is_ok)
        columns = {
            **common,
            schema.STATUS: pa.array(scores.status, pa.string()),
            schema.ERROR_MESSAGE: null_where(scores.error_message, "", pa.string()),
            schema.LABELS: as_lists(selection, labels, is_ok),
            schema.CLASS_IDS: as_lists(selection, pa.array(selection.class_ids), is_ok),
            schema.SCORES: as_lists(selection, pa.array(selection.scores), is_ok),
            schema.ALL_SCORES: self._kept_scores(kept, is_ok),
            schema.EMBEDDING: (
                schema.no_scores(count) if scores.embedding is None else schema.encode_scores(scores.embedding, is_ok)
            ),
            **{name: pa.repeat(value, count) for name, value in model.provenance._asdict().items()},
        }
        arrays = [_cast(columns[field.name], field.type) for field in schema.LABEL_TABLE]
        return pa.StructArray.from_arrays(arrays, fields=list(schema.LABEL_TABLE))

    def _kept_scores(self, scores: np.ndarray, is_ok: np.ndarray) -> pa.Array:
        """Encode the scores that the table keeps: null for a row without any, and for each score that `top_k` leaves out."""
        if self.all_scores == "none":
            return schema.no_scores(len(scores))
        return schema.encode_scores(keep_top(scores, self.top_k) if self.all_scores == "top_k" else scores, is_ok)


def common_columns(batch: Batch) -> dict[str, pa.Array]:
    """Make the columns of the label table that say nothing of a model, with nulls where a value is unknown."""
    now = datetime.now(timezone.utc)
    return {
        schema.ROW_ID: pa.array(batch[schema.ROW_ID], pa.int64()),
        schema.URI: pa.array([strip_credentials(uri) for uri in batch[schema.URI]], pa.string()),
        schema.ATTEMPTS: pa.array(batch[schema.ATTEMPTS], pa.int16()),
        schema.WIDTH: null_where(batch[schema.WIDTH], -1, pa.int32()),
        schema.HEIGHT: null_where(batch[schema.HEIGHT], -1, pa.int32()),
        schema.FORMAT: null_where(batch[schema.FORMAT], "", pa.string()),
        schema.SIZE_BYTES: null_where(batch[schema.SIZE_BYTES], -1, pa.int64()),
        schema.MTIME: pa.array(batch[schema.MTIME].astype("datetime64[us]")).cast(schema.TIMESTAMP),
        schema.ETAG: null_where(batch[schema.ETAG], "", pa.string()),
        schema.CONTENT_HASH: null_where(batch[schema.CONTENT_HASH], "", pa.string()),
        schema.LABELED_AT: pa.repeat(pa.scalar(now, schema.TIMESTAMP), len(batch[schema.ROW_ID])),
    }


def as_lists(selection: Selection, values: pa.Array, is_ok: np.ndarray) -> pa.Array:
    """Make one list for each image; null where a row is not `ok`."""
    return pa.ListArray.from_arrays(pa.array(selection.offsets), values, mask=pa.array(~is_ok))


def null_where(values: np.ndarray, unknown: object, kind: pa.DataType) -> pa.Array:
    """Convert a column, with null for the value that stands for an unknown one."""
    return pa.array(values, kind, mask=values == unknown)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else column.cast(kind)

"""Stage: scores → labels, as rows of the label table."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.errors import Status
from mlcls_ray.labels.select import Selection, keep_top, select
from mlcls_ray.stages.read import Batch
from mlcls_ray.storage.uris import strip_credentials


class Provenance(NamedTuple):
    """The columns that are the same in each row of a run."""

    model: str
    model_fingerprint: str
    preprocess_fingerprint: str
    engine: str
    precision: str
    threshold_id: str
    run_id: str


class SelectLabels:
    """Batch with `all_scores` → rows of the label table (Arrow: an empty list keeps its type).

    `keep_image_bytes`: carry that column on, for the annotate stage. `embedding_size`: of the batch's `embedding`, where it has one.
    """

    def __init__(
        self,
        vocabulary: tuple[str, ...],
        thresholds: np.ndarray,
        provenance: Provenance,
        all_scores: Literal["all", "top_k", "none"],
        top_k: int,
        keep_image_bytes: bool = False,
        embedding_size: int = 0,
    ) -> None:
        self.vocabulary = pa.array(vocabulary, pa.string())
        self.thresholds = thresholds
        self.provenance = provenance
        self.all_scores = all_scores
        self.top_k = top_k
        self.keep_image_bytes = keep_image_bytes
        self.schema = schema.label_table(len(vocabulary), embedding_size)

    def __call__(self, batch: Batch) -> pa.Table:
        count = len(batch[schema.ROW_ID])
        is_ok = batch[schema.STATUS] == Status.OK.value
        chosen = select(np.where(is_ok[:, None], batch[schema.ALL_SCORES], 0), self.thresholds)
        labels = self.vocabulary.take(pa.array(chosen.class_ids))
        now = datetime.now(timezone.utc)
        columns = {
            schema.ROW_ID: batch[schema.ROW_ID],
            schema.URI: [strip_credentials(uri) for uri in batch[schema.URI]],
            schema.STATUS: list(batch[schema.STATUS]),
            schema.ERROR_MESSAGE: _null_if(batch[schema.ERROR_MESSAGE], ""),
            schema.ATTEMPTS: batch[schema.ATTEMPTS],
            schema.WIDTH: _null_if(batch[schema.WIDTH], -1),
            schema.HEIGHT: _null_if(batch[schema.HEIGHT], -1),
            schema.FORMAT: _null_if(batch[schema.FORMAT], ""),
            schema.SIZE_BYTES: _null_if(batch[schema.SIZE_BYTES], -1),
            schema.MTIME: pa.array(batch[schema.MTIME].astype("datetime64[us]")).cast(schema.TIMESTAMP),
            schema.ETAG: _null_if(batch[schema.ETAG], ""),
            schema.CONTENT_HASH: _null_if(batch[schema.CONTENT_HASH], ""),
            schema.LABELS: lists(chosen, labels, is_ok),
            schema.CLASS_IDS: lists(chosen, pa.array(chosen.class_ids), is_ok),
            schema.SCORES: lists(chosen, pa.array(chosen.scores), is_ok),
            schema.ALL_SCORES: self._kept_scores(batch[schema.ALL_SCORES], is_ok),
            schema.EMBEDDING: _half(batch[schema.EMBEDDING], is_ok) if schema.EMBEDDING in batch else None,
            **{name: pa.repeat(value, count) for name, value in self.provenance._asdict().items()},
            schema.LABELED_AT: pa.repeat(pa.scalar(now, schema.TIMESTAMP), count),
        }
        rows = pa.table([_as(columns[field.name], field.type) for field in self.schema], schema=self.schema)
        if self.keep_image_bytes:
            rows = rows.append_column(schema.IMAGE_BYTES, pa.array(batch[schema.IMAGE_BYTES], type=pa.large_binary()))
        return rows

    def _kept_scores(self, scores: np.ndarray, is_ok: np.ndarray) -> pa.Array:
        """fixed_size_list<float16>: null for a row without scores; with `top_k`, null for each score left out."""
        kind = self.schema.field(schema.ALL_SCORES).type
        if self.all_scores == "none":
            return pa.nulls(len(scores), kind)
        kept = keep_top(scores, self.top_k) if self.all_scores == "top_k" else scores
        return _half(kept, is_ok)


def _half(values: np.ndarray, is_ok: np.ndarray) -> pa.Array:
    """float32 [n, K] → fixed_size_list<float16, K>: null for a row that is not `ok`, null for a value that is NaN."""
    flat = pa.array(values.astype(np.float16).ravel(), mask=np.isnan(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(~is_ok))


def lists(chosen: Selection, values: pa.Array, is_ok: np.ndarray) -> pa.Array:
    """One list an image; null where it is not `ok`."""
    return pa.ListArray.from_arrays(pa.array(chosen.offsets), values, mask=pa.array(~is_ok))


def _null_if(values: np.ndarray, unknown: object) -> list[object]:
    return [None if value == unknown else value for value in values.tolist()]


def _as(values: object, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, type=kind)

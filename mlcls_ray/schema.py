"""The columns of the manifest and of the label table: their names, types and meanings.

The manifest is the frozen list of a run's inputs. The label table has one row per manifest row. Batches between the stages use the same
names, plus the columns under "between the stages", which never reach a file.

How to spell a column: Python code uses the constants below. SQL is written as SQL, with the names as they are; `tests/table/test_sql.py`
runs every query. `MEANINGS` says what each column means; the documentation is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

# manifest
ROW_ID = "row_id"
URI = "uri"
SIZE_BYTES = "size_bytes"
MTIME = "mtime"
ETAG = "etag"
ATTEMPTS = "attempts"

# label table
STATUS = "status"
ERROR_MESSAGE = "error_message"
WIDTH = "width"
HEIGHT = "height"
FORMAT = "format"
CONTENT_HASH = "content_hash"
LABELS = "labels"
CLASS_IDS = "class_ids"
SCORES = "scores"
ALL_SCORES = "all_scores"
EMBEDDING = "embedding"
MODEL = "model"
MODEL_FINGERPRINT = "model_fingerprint"
PREPROCESS_FINGERPRINT = "preprocess_fingerprint"
ENGINE = "engine"
PRECISION = "precision"
THRESHOLD_ID = "threshold_id"
RUN_ID = "run_id"
RUN_NUMBER = "run_number"
LABELED_AT = "labeled_at"

# duplicates
ORIGINAL = "original"

# corrections
CORRECTION_ID = "correction_id"
NUMBER = "number"
CORRECTED_BY = "corrected_by"
CORRECTED_AT = "corrected_at"
VERDICT = "verdict"
BEFORE = "before"
AFTER = "after"
UNDOES = "undoes"

# between the stages
PIXELS = "pixels"
"""uint8 [N, H, W, 3] at the model's input size; zeros where the row is not `ok`."""
IMAGE_BYTES = "image_bytes"
"""The encoded image; empty for rows that will not be annotated."""
JPEG_HEADER = "jpeg_header"
"""A packed `JpegHeader` for each image that a card decodes; empty for others."""

TIMESTAMP = pa.timestamp("us", tz="UTC")

MEANINGS: Mapping[str, str] = {
    ROW_ID: "The row's number in the manifest of its run, from 0. (run_id, row_id) is the table's key.",
    URI: "Where the image is: an absolute path or a URL, without user, password and signature.",
    STATUS: "`ok`, or why the image has no labels.",
    ERROR_MESSAGE: "The error in one line; null for `ok`.",
    ATTEMPTS: "Number of runs that tried this input. In the manifest: before this run. In the label table: including this run.",
    WIDTH: "Width of the image in pixels, after its EXIF orientation was applied.",
    HEIGHT: "Height of the image in pixels, after its EXIF orientation was applied.",
    FORMAT: "The image's file format, from its first bytes: `jpeg`, `png` and so on.",
    SIZE_BYTES: "Size of the encoded image. Null where it is not known.",
    MTIME: "When the file or object was last changed. Null where it is not known.",
    ETAG: "The server's entity tag of the object. Null where there is none.",
    CONTENT_HASH: "A hash of the encoded image. Two inputs with the same hash are the same image.",
    LABELS: "Classes whose score is above their threshold, best first, under the names of the label map if there was one. Empty if there "
    "are none; null if the row is not `ok`.",
    CLASS_IDS: "The labels' positions in the model's vocabulary, in the order of `labels`; of a merged label that of its best class.",
    SCORES: "The labels' scores from 0 to 1, in the order of `labels`.",
    ALL_SCORES: "The score of each class, in the order of the vocabulary, rounded to float16. Null if the row is not `ok`, or if "
    "scores are not kept.",
    EMBEDDING: "The network's pooled features, scaled to length 1, rounded to float16. Null without `embeddings: true`.",
    MODEL: "Name of the model.",
    MODEL_FINGERPRINT: "A hash of the network, its weights and its vocabulary. Another hash means that scores may differ.",
    PREPROCESS_FINGERPRINT: "A hash of how an image becomes the model's input. Another hash means that scores may differ.",
    ENGINE: "The engine that executed the network, such as `openvino`.",
    PRECISION: "The engine's number format: `fp32`, `tf32`, `bf16`, `fp16` or `int8`.",
    THRESHOLD_ID: "The thresholds that the labels were selected with: the number if all classes share it, else a hash of all; and behind "
    "a plus sign a hash of the label map, if there was one.",
    RUN_ID: "The run that wrote this row.",
    RUN_NUMBER: "The run's place among the runs of this output, in the order of their starts, from 1. Of the rows of a uri, that of the "
    "greatest number counts. 0: the run began before runs were numbered.",
    LABELED_AT: "When the labels were selected, by the clock of the worker.",
    ORIGINAL: "The row id of the first input with the same bytes.",
    CORRECTION_ID: "The action that this row belongs to. All images that were corrected at once share it.",
    NUMBER: "The action's place in the order of all corrections of this output: greater than every number that its writer had seen. "
    "Equal numbers are ordered by `corrected_at`, then by `correction_id`.",
    CORRECTED_BY: "Who corrected the image.",
    CORRECTED_AT: "When, by the clock of the machine that wrote the row.",
    VERDICT: "`labeled`: the labels in `after` are right. `unsure`: nobody can say. `withdrawn`: all corrections of the image are undone.",
    BEFORE: "The labels that the person saw: the model's, or those of the correction before.",
    AFTER: "The labels from then on.",
    UNDOES: "The `correction_id` of the action that this one takes back. Null if it takes none back.",
}
"""One sentence or two per column of the label table, the manifest and the list of duplicates."""


MANIFEST = pa.schema(
    [
        pa.field(ROW_ID, pa.int64(), nullable=False),
        pa.field(URI, pa.string(), nullable=False),
        pa.field(SIZE_BYTES, pa.int64()),
        pa.field(MTIME, TIMESTAMP),
        pa.field(ETAG, pa.string()),
        pa.field(ATTEMPTS, pa.int16(), nullable=False),
    ]
)


DUPLICATES = pa.schema(
    [
        pa.field(ROW_ID, pa.int64(), nullable=False),
        pa.field(ORIGINAL, pa.int64(), nullable=False),
        pa.field(CONTENT_HASH, pa.string(), nullable=False),
    ]
)
"""Rows of a manifest whose bytes equal those of an earlier row."""


LABEL_TABLE = pa.schema(
    [
        pa.field(ROW_ID, pa.int64(), nullable=False),
        pa.field(URI, pa.string(), nullable=False),
        pa.field(STATUS, pa.string(), nullable=False),
        pa.field(ERROR_MESSAGE, pa.string()),
        pa.field(ATTEMPTS, pa.int16(), nullable=False),
        pa.field(WIDTH, pa.int32()),
        pa.field(HEIGHT, pa.int32()),
        pa.field(FORMAT, pa.string()),
        pa.field(SIZE_BYTES, pa.int64()),
        pa.field(MTIME, TIMESTAMP),
        pa.field(ETAG, pa.string()),
        pa.field(CONTENT_HASH, pa.string()),
        pa.field(LABELS, pa.list_(pa.string())),
        pa.field(CLASS_IDS, pa.list_(pa.int16())),
        pa.field(SCORES, pa.list_(pa.float32())),
        pa.field(ALL_SCORES, pa.list_(pa.float32())),
        pa.field(EMBEDDING, pa.list_(pa.float32())),
        pa.field(MODEL, pa.string(), nullable=False),
        pa.field(MODEL_FINGERPRINT, pa.string(), nullable=False),
        pa.field(PREPROCESS_FINGERPRINT, pa.string(), nullable=False),
        pa.field(ENGINE, pa.string(), nullable=False),
        pa.field(PRECISION, pa.string(), nullable=False),
        pa.field(THRESHOLD_ID, pa.string(), nullable=False),
        pa.field(RUN_ID, pa.string(), nullable=False),
        pa.field(RUN_NUMBER, pa.int32(), nullable=False),
        pa.field(LABELED_AT, TIMESTAMP, nullable=False),
    ]
)
"""One schema for all runs, of types that every reader of Parquet has: whatever the model, and with embeddings or without."""


CORRECTIONS = pa.schema(
    [
        pa.field(CORRECTION_ID, pa.string(), nullable=False),
        pa.field(NUMBER, pa.int64(), nullable=False),
        pa.field(URI, pa.string(), nullable=False),
        pa.field(CONTENT_HASH, pa.string()),
        pa.field(RUN_ID, pa.string(), nullable=False),
        pa.field(CORRECTED_BY, pa.string(), nullable=False),
        pa.field(CORRECTED_AT, TIMESTAMP, nullable=False),
        pa.field(VERDICT, pa.string(), nullable=False),
        pa.field(BEFORE, pa.list_(pa.string()), nullable=False),
        pa.field(AFTER, pa.list_(pa.string()), nullable=False),
        pa.field(UNDOES, pa.string()),
    ]
)
"""One row per image and action of a person. `run_id` is the run whose labels the person saw."""


def encode_scores(values: np.ndarray, is_ok: np.ndarray) -> pa.ListArray:
    """Encode scores or embeddings for the label table.

    They are rounded to float16, as exact as they are needed, and stored as float32, which every reader has. Parquet's dictionary makes
    them as small as float16: there are 15,361 such numbers from 0 to 1.

    Args:
        values: float32 [n, K]; NaN for a score that is not kept.
        is_ok: bool [n]; a row that is not ok becomes null.

    Returns:
        list<float32> of length n, each of K numbers.
    """
    kept = values if is_ok.all() else values[is_ok]
    rounded = kept.astype(np.float16).astype(np.float32).ravel()
    is_missing = np.isnan(rounded)
    flat = pa.array(rounded, mask=is_missing if is_missing.any() else None)
    offsets = np.zeros(len(is_ok) + 1, np.int32)
    np.cumsum(is_ok, out=offsets[1:])
    return pa.ListArray.from_arrays(
        pa.array(offsets * values.shape[1]), flat, type=pa.list_(pa.float32()), mask=pa.array(~is_ok)
    )


def no_scores(rows: int) -> pa.ListArray:
    """Encode that no score, or no embedding, is kept."""
    return pa.nulls(rows, pa.list_(pa.float32()))


def decode_scores(column: pa.Array | pa.ChunkedArray, size: int) -> np.ndarray:
    """Decode what `encode_scores` made: float32 [n, K], NaN for each null.

    Args:
        column: Lists of floats, each of them null or of length K.
        size: K.
    """
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    scores = np.full((len(lists), size), np.nan, np.float32)
    is_there = lists.is_valid().to_numpy(zero_copy_only=False)
    scores[is_there] = lists.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False).reshape(-1, size)
    return scores

"""The tables: the only module that spells their columns.

The manifest holds what was found; the label table holds one row per manifest row. Batches between the stages use the
same names, plus the columns under "between the stages", which never reach a file.
"""

from __future__ import annotations

import pyarrow as pa

# manifest
ROW_ID = "row_id"
URI = "uri"
SIZE_BYTES = "size_bytes"
MTIME = "mtime"
ETAG = "etag"
ATTEMPTS = "attempts"
"""How many runs have tried the input for want of an answer: in the manifest before the run, in the label table with it."""

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
"""Only where it was asked for: the network's pooled features, of length 1."""
MODEL = "model"
MODEL_FINGERPRINT = "model_fingerprint"
PREPROCESS_FINGERPRINT = "preprocess_fingerprint"
ENGINE = "engine"
PRECISION = "precision"
THRESHOLD_ID = "threshold_id"
RUN_ID = "run_id"
LABELED_AT = "labeled_at"

# duplicates
ORIGINAL = "original"
"""The row id whose bytes are the same."""

# between the stages
PIXELS = "pixels"
"""uint8 [N, H, W, 3], the model's input size; zeros where the row is not `ok`."""
IMAGE_BYTES = "image_bytes"
"""The encoded image, carried only for rows that will be annotated; empty otherwise."""

TIMESTAMP = pa.timestamp("us", tz="UTC")


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
"""Rows of a manifest whose bytes are those of an earlier row."""


def label_table(class_num: int, embedding_size: int = 0) -> pa.Schema:
    """The label table's schema for a vocabulary of `class_num` classes. Empty lists keep their type. With embeddings: their size."""
    return pa.schema(
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
            pa.field(ALL_SCORES, pa.list_(pa.float16(), class_num)),
            *([pa.field(EMBEDDING, pa.list_(pa.float16(), embedding_size))] if embedding_size else []),
            pa.field(MODEL, pa.string(), nullable=False),
            pa.field(MODEL_FINGERPRINT, pa.string(), nullable=False),
            pa.field(PREPROCESS_FINGERPRINT, pa.string(), nullable=False),
            pa.field(ENGINE, pa.string(), nullable=False),
            pa.field(PRECISION, pa.string(), nullable=False),
            pa.field(THRESHOLD_ID, pa.string(), nullable=False),
            pa.field(RUN_ID, pa.string(), nullable=False),
            pa.field(LABELED_AT, TIMESTAMP, nullable=False),
        ]
    )

"""Outputs with as many rows as wanted, written without Ray and without a model. No image of theirs exists, unless one is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.config import S3Options
from mlcls_ray.labels.select import select
from mlcls_ray.stages.read import hash_content
from mlcls_ray.stages.select import as_lists
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import write_fragment
from mlcls_ray.table.manifest import write_manifest
from mlcls_ray.table.records import RunRecord, Success, make_visible, next_number
from tests.table.outputs import write_record

CLASSES = tuple(f"class {number:02d}" for number in range(80))
FRAGMENT_ROWS = 250_000
THRESHOLD = 0.5


def random_scores(rows: int, classes: int, seed: int) -> np.ndarray:
    """Most scores are near 0, and about two of an image are above the threshold."""
    random = np.random.default_rng(seed)
    return (random.random((rows, classes), np.float32) ** 28).astype(np.float32)


def content_hash(uri: str) -> str:
    """The hash of an image; of one that does not exist some other text."""
    return hash_content(Path(uri).read_bytes()) if Path(uri).is_file() else f"of {uri}"


def label_rows(
    uris: Sequence[str], first: int, record: RunRecord, scores: np.ndarray, embeddings: np.ndarray | None = None
) -> pa.Table:
    """Rows of the label table, numbered from `first`; one in a thousand is missing."""
    count = len(uris)
    is_ok = np.arange(first, first + count) % 1000 != 999
    thresholds, label_map = np.array(list(record.thresholds.values()), np.float32), record.resolved_map
    selected = select(np.where(is_ok[:, None], scores, 0), thresholds, label_map.groups)
    names = pa.array(label_map.names, pa.string()).take(pa.array(selected.class_ids))
    constants = {
        "attempts": 1, "width": 640, "height": 480, "format": "jpeg", "size_bytes": 100_000, "mtime": record.created_at, "etag": None,
        "error_message": None, "model": record.model, "model_fingerprint": record.model_fingerprint,
        "preprocess_fingerprint": record.preprocess_fingerprint, "engine": "openvino", "precision": "fp32",
        "threshold_id": record.threshold_id, "run_id": record.run_id, "run_number": record.number, "labeled_at": record.created_at,
    }  # fmt: skip
    columns = {
        "row_id": pa.array(np.arange(first, first + count)),
        "uri": pa.array(uris),
        "status": pa.array(np.where(is_ok, "ok", "missing")),
        "content_hash": pa.array([content_hash(uri) for uri in uris]),
        "labels": as_lists(selected, names, is_ok),
        "class_ids": as_lists(selected, pa.array(selected.class_ids), is_ok),
        "scores": as_lists(selected, pa.array(selected.scores), is_ok),
        "all_scores": schema.encode_scores(scores, is_ok),
        "embedding": schema.no_scores(count) if embeddings is None else schema.encode_scores(embeddings, is_ok),
    }
    arrays = [
        columns[field.name] if field.name in columns else pa.repeat(pa.scalar(constants[field.name], field.type), count)
        for field in schema.LABEL_TABLE
    ]
    return pa.table(arrays, schema=schema.LABEL_TABLE)


def write_run(
    out: str,
    run_id: str,
    uris: Sequence[str],
    *,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
    scores: np.ndarray | None = None,
    embeddings: np.ndarray | None = None,
    s3: S3Options | None = None,
) -> Success:
    """Write a committed run of these uris; `scores`: float32 [n, C], by default random."""
    store = Store(out, s3)
    rows = write_manifest(store, run_id, (InputEntry(uri, 100_000) for uri in uris))
    record = write_record(store, run_id, next_number(store), rows, dict.fromkeys(classes, THRESHOLD), {})
    fragments = []
    for task, first in enumerate(range(0, len(uris), FRAGMENT_ROWS)):
        part = slice(first, first + FRAGMENT_ROWS)
        some = random_scores(len(uris[part]), len(classes), seed + task) if scores is None else scores[part]
        vectors = None if embeddings is None else embeddings[part]
        table = label_rows(uris[part], first, record, some, vectors)
        fragments.append(write_fragment(store, run_id, layout.fragment_name(1, task), table))
    return make_visible(store, run_id, fragments, seconds=1.0)

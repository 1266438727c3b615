"""Outputs with committed runs, written without Ray and without a model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa

from mlcls_ray.stages.score import Scores, as_struct
from mlcls_ray.stages.select import Select
from mlcls_ray.stages.spec import Provenance, model_column, model_rows
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import write_fragment
from mlcls_ray.table.manifest import write_manifest
from mlcls_ray.table.records import RunRecord, Success, make_visible, next_number
from tests.stages.specs import VOCABULARY, model_spec, run_spec

INPUTS = ["/images"]
URIS = tuple(f"/images/{number}.jpg" for number in range(6))
"""The last of them is missing."""


def label_rows(
    uris: Sequence[str], provenance: Provenance, seed: int = 0, embeddings: bool = False, top_k: int | None = None
) -> pa.Table:
    """Rows of the label table; the last one failed."""
    random = np.random.default_rng(seed)
    count = len(uris)

    def objects(*values: object) -> np.ndarray:
        return np.array(values, dtype=object)

    status, message = objects(*["ok"] * (count - 1), "missing"), objects(*[""] * (count - 1), "gone")
    scores = Scores(
        status,
        message,
        random.random((count, 3), np.float32),
        random.normal(size=(count, 4)).astype(np.float32) if embeddings else None,
    )
    batch = {
        "row_id": np.arange(count), "uri": objects(*uris), "status": status, "error_message": message,
        "attempts": np.ones(count, np.int16), "width": np.full(count, 64, np.int32), "height": np.full(count, 48, np.int32),
        "format": objects(*["jpeg"] * count), "size_bytes": np.full(count, 100), "etag": objects(*[""] * count),
        "mtime": np.full(count, np.datetime64("2026-01-02T03:04:05", "us")), "content_hash": objects(*uris),
        model_column("m"): as_struct(scores),
    }  # fmt: skip
    kept = {"all_scores": "top_k", "top_k": top_k} if top_k else {}
    return model_rows(Select(run_spec(model_spec("m", provenance=provenance), **kept))(batch), "m")


def begin_run(store: Store, run_id: str, uris: Sequence[str] = URIS, number: int | None = None) -> RunRecord:
    """Write the manifest and `run.json` of a run; `number` 0 as versions did that had no numbers."""
    place = next_number(store) if number is None else number
    rows = write_manifest(store, run_id, [InputEntry(uri, 100) for uri in uris])
    config = {"inputs": INPUTS, "threshold": {"default": 0.5}}
    return write_record(store, run_id, place, rows, dict.fromkeys(VOCABULARY, 0.5), config)


def write_record(
    store: Store, run_id: str, number: int, rows: int, thresholds: dict[str, float], config: dict[str, Any]
) -> RunRecord:
    """Write the `run.json` of a run of the model `m`."""
    spec = model_spec("m")
    record = RunRecord(
        run_id=run_id,
        number=number,
        rows=rows,
        thresholds=thresholds,
        config=config,
        versions={},
        hardware={},
        engine=spec.engine,
        created_at=datetime.now(timezone.utc),
        **{
            name: getattr(spec.provenance, name)
            for name in ("model", "model_fingerprint", "preprocess_fingerprint", "threshold_id")
        },
    )
    store.write_json(layout.run_json(run_id), record.model_dump(mode="json"))
    return record


def write_run(
    store: Store,
    run_id: str,
    uris: Sequence[str] = URIS,
    *,
    seed: int = 0,
    embeddings: bool = False,
    top_k: int | None = None,
    number: int | None = None,
    fragment_rows: int = 2,
) -> Success:
    """Write a committed run with fragments of a few rows."""
    record = begin_run(store, run_id, uris, number)
    provenance = model_spec("m").provenance._replace(run_id=run_id, run_number=record.number)
    rows = label_rows(uris, provenance, seed, embeddings, top_k)
    fragments = [
        write_fragment(store, run_id, layout.fragment_name(1, task), rows.slice(first, fragment_rows))
        for task, first in enumerate(range(0, len(rows), fragment_rows))
    ]
    return make_visible(store, run_id, fragments, seconds=1.0)

"""`mlcls relabel`: labels at other thresholds from the scores that the table keeps. No image is read, no model is run.

The result is a run like any other: its manifest, its fragments, and in its record which runs it was made from. Scores are kept as float16;
a label's own score is there in float32 too, and what was no label had a score of at most its threshold then. With both, labels at the old
thresholds come out as they were.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mlcls_ray import __version__, schema
from mlcls_ray.errors import UsageError
from mlcls_ray.job.commit import make_visible
from mlcls_ray.job.resume import new_run_id
from mlcls_ray.labels.select import select
from mlcls_ray.labels.thresholds import Thresholds
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.stages.select import as_lists
from mlcls_ray.storage.lease import held_lease
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, RowSet, write_fragment
from mlcls_ray.table.manifest import to_parquet
from mlcls_ray.table.records import RunRecord, Success, newest_record, no_runs, read_record, read_success, run_ids
from mlcls_ray.table.views import superseded_rows

ATTEMPT = 1


class Source(NamedTuple):
    """A committed run, and the ids of its rows that are taken: all but `skipped`."""

    record: RunRecord
    success: Success
    skipped: RowSet


def relabel(store: Store, thresholds: Thresholds, source: str | None = None, run_id: str | None = None) -> Success:
    """Cut labels anew from the run `source`, or from the newest row of each uri over all runs, into a new run.

    Raises:
        UsageError: nothing is committed, the rows are of several models, their scores were not kept, or the run exists.
        LeaseError: another process writes that run.
    """
    began = time.monotonic()
    name = run_id or new_run_id()
    if store.read(layout.run_json(name)) is not None:
        raise UsageError(f"run '{name}' exists already: give another --run-id")
    sources = _sources(store, source)
    newest = newest_record(one.record for one in sources)
    assert newest is not None  # there is a source at least
    vocabulary = tuple(newest.thresholds)
    resolved = thresholds.resolve(vocabulary, list(newest.thresholds.values()))
    record = newest.model_copy(
        update={
            "run_id": name,
            "thresholds": dict(zip(vocabulary, map(float, resolved.values), strict=True)),
            "threshold_id": resolved.id,
            "config": {**newest.config, "threshold": thresholds.model_dump(mode="json"), "run_id": name},
            "versions": {**newest.versions, "mlcls_ray": __version__},
            "relabeled_from": tuple(one.record.run_id for one in sources),
            "created_at": datetime.now(timezone.utc),
        }
    )
    with held_lease(store, name) as lease, ThreadPoolExecutor(os.cpu_count() or 1, "relabel") as threads:
        parts = prefetch_map(lambda part: _relabeled(store, record, *part), _parts(sources), threads, 2)
        written = prefetch_map(lambda part: _write(store, name, *part), _numbered(parts), threads, 2)
        fragments = list(written)
        lease.check()
        # Only now: a relabeling that dies leaves nothing that looks like a run to be resumed.
        rows = sum(fragment.rows for fragment in fragments)
        store.write_json(layout.run_json(name), record.model_copy(update={"rows": rows}).model_dump(mode="json"))
        return make_visible(store, name, fragments, time.monotonic() - began)


def _sources(store: Store, chosen: str | None) -> list[Source]:
    names = [chosen] if chosen else run_ids(store)
    known = [(read_record(store, one), read_success(store, one)) for one in names]
    committed = [(record, success) for record, success in known if record and success and success.rows]
    if not committed:
        raise no_runs(store, f"committed run '{chosen}'" if chosen else "committed run")
    totals = {record.run_id: success.rows for record, success in committed}
    superseded = {} if len(totals) == 1 else superseded_rows(store, totals)
    sources = [
        Source(record, success, superseded.get(record.run_id, RowSet(success.rows))) for record, success in committed
    ]
    sources = [one for one in sources if len(one.skipped) < one.success.rows]
    models = {one.record.model_fingerprint: one.record for one in sources}
    if len(models) > 1:
        told = ", ".join(f"{one.model} (run {one.run_id})" for one in models.values())
        raise UsageError(f"the newest rows are of {len(models)} models: {told}; choose one run by --from")
    if any(one.record.config.get("all_scores") == "none" for one in sources):
        raise UsageError("the scores were not kept (all_scores: none): label the images again")
    return sources


def _parts(sources: list[Source]) -> Iterator[tuple[Source, str]]:
    for source in sources:
        yield from ((source, fragment.name) for fragment in source.success.fragments)


def _relabeled(store: Store, record: RunRecord, source: Source, fragment: str) -> pa.Table:
    """A fragment's rows that are taken, with their new labels; their ids are still the old ones."""
    rows = store.read_columns(f"{layout.labels_folder(source.record.run_id)}/{fragment}", None)
    if len(source.skipped):
        rows = rows.filter(~source.skipped.contains(rows.column(schema.ROW_ID).to_numpy()))
    rows = rows.combine_chunks()
    if rows.num_rows == 0:
        return rows
    thresholds = np.array(list(record.thresholds.values()), np.float32)
    before = np.array(list(source.record.thresholds.values()), np.float32)
    is_ok = ~rows.column(schema.LABELS).is_null().to_numpy()
    chosen = select(scores_of(rows, is_ok, before), thresholds)
    names = pa.array(record.thresholds, pa.string()).take(pa.array(chosen.class_ids))
    now = pa.scalar(datetime.now(timezone.utc), schema.TIMESTAMP)
    replaced = {
        schema.LABELS: as_lists(chosen, names, is_ok),
        schema.CLASS_IDS: as_lists(chosen, pa.array(chosen.class_ids), is_ok),
        schema.SCORES: as_lists(chosen, pa.array(chosen.scores), is_ok),
        schema.THRESHOLD_ID: pa.repeat(record.threshold_id, rows.num_rows),
        schema.RUN_ID: pa.repeat(record.run_id, rows.num_rows),
        schema.LABELED_AT: pa.repeat(now, rows.num_rows),
    }
    columns = [replaced.get(field.name, rows.column(field.name)) for field in rows.schema]
    return pa.table(columns, schema=rows.schema)


def scores_of(rows: pa.Table, is_ok: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """float32 [n, C] of rows of one chunk: as near to what the model gave as the table tells. Zeros where a row is not `ok`, NaN
    where a score was not kept (`all_scores: top_k`). `thresholds` float32 [C]: those that the rows were labeled at.
    """
    kept = rows.column(schema.ALL_SCORES).combine_chunks()
    kept = kept.chunk(0) if isinstance(kept, pa.ChunkedArray) else kept
    class_num = len(thresholds)
    values = kept.values.slice(kept.offset * class_num, len(kept) * class_num)
    scores = values.cast(pa.float32()).to_numpy(zero_copy_only=False).reshape(-1, class_num)
    scores = np.minimum(scores, thresholds)
    scores[~is_ok] = 0.0
    class_ids = rows.column(schema.CLASS_IDS).combine_chunks()
    counts = class_ids.value_lengths().fill_null(0).to_numpy()
    labeled = rows.column(schema.SCORES).combine_chunks()
    scores[np.repeat(np.arange(len(rows)), counts), class_ids.flatten().to_numpy()] = labeled.flatten().to_numpy()
    result: np.ndarray = scores
    return result


def _numbered(parts: Iterator[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """Each part under its number, with the row ids of the new run."""
    first = 0
    for number, rows in enumerate(part for part in parts if part.num_rows):
        ids = pa.array(np.arange(first, first + rows.num_rows))
        first += rows.num_rows
        yield number, rows.set_column(0, schema.label_table(1).field(schema.ROW_ID), ids)


def _write(store: Store, run_id: str, number: int, rows: pa.Table) -> Fragment:
    manifest = rows.select(schema.MANIFEST.names).cast(schema.MANIFEST)
    store.write(f"{layout.manifest_folder(run_id)}/part-{number:05d}.parquet", to_parquet(manifest))
    return write_fragment(store, run_id, layout.fragment_name(ATTEMPT, number), rows)

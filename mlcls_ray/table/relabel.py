"""`mlcls relabel`: select labels with other thresholds, or another label map, from the scores in the table.

No image is read, no model is run.

The result is a run like any other, with its own manifest and fragments; its record names the runs whose scores it used. Scores are
rounded to float16. The score of a label is kept exactly too, and the score of a class that was no label was at most its threshold then.
With both, the old thresholds give exactly the old labels. Where a label map merges or drops labels, it is not known any more which classes
were labels: there the scores are rounded so that each stays on its side of its threshold.

Local fragments wait in a folder of their own, and become `labels` when they are committed: readers that list files see nothing before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mlcls_ray import __version__, schema
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.label_map import LabelMap
from mlcls_ray.labels.select import clip_to_unlabeled, round_beside, select
from mlcls_ray.labels.thresholds import Thresholds
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.stages.select import as_lists
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.compact import finish
from mlcls_ray.table.fragments import fragment_paths, read_fragment
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.ledger import Fragment, RowSet, write_fragment_file
from mlcls_ray.table.manifest import ManifestPart, write_manifest_part, write_manifest_parts
from mlcls_ray.table.records import (
    RunRecord,
    Success,
    check_clock,
    make_visible,
    new_run_id,
    newest_record,
    next_number,
    no_runs,
    read_record,
    read_success,
    run_ids,
)
from mlcls_ray.table.views import superseded_rows

ATTEMPT = 1


class Source(NamedTuple):
    """A committed run whose scores are used, for all of its rows but the `skipped` ones."""

    record: RunRecord
    success: Success
    skipped: RowSet


def relabel(
    store: Store,
    thresholds: Thresholds,
    source: str | None = None,
    run_id: str | None = None,
    label_map: LabelMap | None = None,
) -> Success:
    """Select labels anew, and write them as a new run.

    Args:
        store: The output.
        thresholds: The new thresholds; a class without one keeps that of the newest run.
        source: The run whose scores are used. Default: the newest row of each uri, over all runs.
        run_id: Name of the new run. Default: the time.
        label_map: The new names of the labels. Default: that of the newest run.

    Raises:
        UsageError: no run is committed, the rows are of several models, their scores were not kept, the run exists, or the thresholds or
            the map name a class that the model lacks.
        LeaseError: another process writes that run.
    """
    started = time.monotonic()
    name = run_id or new_run_id()
    existing = read_record(store, name)
    if existing and (not existing.relabeled_from or read_success(store, name)):
        raise UsageError(f"run '{name}' exists already: give another --run-id")
    check_clock(store)
    sources = _sources(store, source)
    record = _new_record(name, sources, thresholds, label_map, next_number(store))
    with run_lease(store, name) as lease, ThreadPoolExecutor(os.cpu_count() or 1, "relabel") as threads:
        for folder in (layout.labels_folder(name), layout.compacted_folder(name), layout.manifest_folder(name)):
            store.remove_folder(folder)  # of one that died
        tables = prefetch_map(lambda part: _relabeled(store, record, *part), _parts(store, sources), threads, 2)
        written = list(prefetch_map(lambda part: _write(store, name, *part), _numbered(tables), threads, 2))
        lease.check()
        # run.json comes last: a relabeling that dies must not look like a run that can be resumed.
        fragments = [fragment for _, fragment in written]
        rows = sum(fragment.rows for fragment in fragments)
        write_manifest_parts(store, name, [part for part, _ in written])
        store.write_json(layout.run_json(name), record.model_copy(update={"rows": rows}).model_dump(mode="json"))
        success = make_visible(store, name, fragments, time.monotonic() - started)
        finish(store, name)
        return success


def _new_record(
    run_id: str, sources: Sequence[Source], thresholds: Thresholds, label_map: LabelMap | None, number: int
) -> RunRecord:
    newest = newest_record(source.record for source in sources)
    assert newest is not None  # there is at least one source
    vocabulary = tuple(newest.thresholds)
    resolved = thresholds.resolve(vocabulary, list(newest.thresholds.values()))
    names = newest.resolved_map if label_map is None else label_map.resolve(vocabulary)
    options = {"threshold": thresholds.model_dump(mode="json"), "run_id": run_id}
    if label_map is not None:
        options["map"] = label_map.model_dump(mode="json")
    return newest.model_copy(
        update={
            "run_id": run_id,
            "number": number,
            "thresholds": dict(zip(vocabulary, map(float, resolved.values), strict=True)),
            "threshold_id": names.added_to(resolved.id),
            "label_map": names.changed,
            "config": {**newest.config, **options},
            "versions": {**newest.versions, "mlcls_ray": __version__},
            "relabeled_from": tuple(source.record.run_id for source in sources),
            "left_out": {},
            "changes": None,
            "created_at": datetime.now(timezone.utc),
        }
    )


def _sources(store: Store, chosen: str | None) -> list[Source]:
    """Find the runs whose scores are used, and which of their rows are not."""
    runs = [
        (read_record(store, run_id), read_success(store, run_id)) for run_id in ([chosen] if chosen else run_ids(store))
    ]
    committed = [(record, success) for record, success in runs if record and success and success.rows]
    if not committed:
        raise no_runs(store, f"committed run '{chosen}'" if chosen else "committed run")
    totals = {record.run_id: success.rows for record, success in committed}
    superseded = {} if len(totals) == 1 else superseded_rows(store, totals)
    sources = [
        Source(record, success, superseded.get(record.run_id, RowSet(success.rows))) for record, success in committed
    ]
    sources = [source for source in sources if len(source.skipped) < source.success.rows]
    models = {source.record.model_fingerprint: source.record for source in sources}
    if len(models) > 1:
        names = ", ".join(f"{record.model} (run {record.run_id})" for record in models.values())
        raise UsageError(f"the newest rows are of {len(models)} models: {names}; choose one run by --from")
    if any(source.record.config.get("all_scores") == "none" for source in sources):
        raise UsageError("the scores were not kept (all_scores: none): label the images again")
    return sources


def _parts(store: Store, sources: list[Source]) -> Iterator[tuple[Source, str]]:
    for source in sources:
        yield from ((source, path) for path in fragment_paths(store, source.success))


def _relabeled(store: Store, record: RunRecord, source: Source, path: str) -> pa.Table:
    """Read a fragment's rows that are used, and give them their new labels; their row ids are still the old ones."""
    rows = read_fragment(store, path)
    if len(source.skipped):
        rows = rows.filter(~source.skipped.contains(rows.column(schema.ROW_ID).to_numpy()))
    rows = rows.combine_chunks()
    if rows.num_rows == 0:
        return rows
    thresholds = np.array(list(record.thresholds.values()), np.float32)
    label_map = record.resolved_map
    is_ok = ~rows.column(schema.LABELS).is_null().to_numpy()
    scores = restore_scores(rows, is_ok, source.record)
    selected = select(scores, thresholds, label_map.groups)
    names = pa.array(label_map.names, pa.string()).take(pa.array(selected.class_ids))
    now = pa.scalar(datetime.now(timezone.utc), schema.TIMESTAMP)
    replaced = {
        schema.LABELS: as_lists(selected, names, is_ok),
        schema.CLASS_IDS: as_lists(selected, pa.array(selected.class_ids), is_ok),
        schema.SCORES: as_lists(selected, pa.array(selected.scores), is_ok),
        schema.THRESHOLD_ID: pa.repeat(record.threshold_id, rows.num_rows),
        schema.RUN_ID: pa.repeat(record.run_id, rows.num_rows),
        schema.RUN_NUMBER: pa.repeat(pa.scalar(record.number, pa.int32()), rows.num_rows),
        schema.LABELED_AT: pa.repeat(now, rows.num_rows),
    }
    if label_map.changed:
        replaced[schema.ALL_SCORES] = schema.encode_scores(round_beside(scores, thresholds), is_ok)
    columns = [replaced.get(field.name, rows.column(field.name)) for field in rows.schema]
    return pa.table(columns, schema=rows.schema)


def restore_scores(rows: pa.Table, is_ok: np.ndarray, record: RunRecord) -> np.ndarray:
    """Restore the model's scores, as exactly as the table has them.

    Args:
        rows: Rows of the label table.
        is_ok: bool [n].
        record: That of their run, with the thresholds and the label map that their labels were selected with.

    Returns:
        float32 [n, C]. Zeros where a row is not `ok`, NaN where a score was not kept (`all_scores: top_k`).
    """
    thresholds = np.array(list(record.thresholds.values()), np.float32)
    scores = schema.decode_scores(rows.column(schema.ALL_SCORES), len(thresholds))
    if not record.label_map:
        scores = clip_to_unlabeled(scores, thresholds)
    scores[~is_ok] = 0.0
    class_ids = rows.column(schema.CLASS_IDS).combine_chunks()
    counts = class_ids.value_lengths().fill_null(0).to_numpy()
    exact = rows.column(schema.SCORES).combine_chunks()
    scores[np.repeat(np.arange(len(rows)), counts), class_ids.flatten().to_numpy()] = exact.flatten().to_numpy()
    result: np.ndarray = scores
    return result


def _numbered(tables: Iterator[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """Number the tables that have rows, and give their rows the ids of the new run."""
    first = 0
    for number, rows in enumerate(table for table in tables if table.num_rows):
        row_ids = pa.array(np.arange(first, first + rows.num_rows))
        first += rows.num_rows
        yield number, rows.set_column(0, schema.LABEL_TABLE.field(schema.ROW_ID), row_ids)


def _write(store: Store, run_id: str, number: int, rows: pa.Table) -> tuple[ManifestPart, Fragment]:
    manifest = rows.select(schema.MANIFEST.names).cast(schema.MANIFEST)
    part = write_manifest_part(store, run_id, number, manifest)
    folder = layout.compacted_folder(run_id) if store.is_local else layout.labels_folder(run_id)
    return part, write_fragment_file(store, folder, layout.fragment_name(ATTEMPT, number), rows)

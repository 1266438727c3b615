"""`mlcls compact`: merge small fragments, and rewrite those of older layouts.

Readers that follow `_SUCCESS` (`open_labels`, `mlcls query`) see the new fragments from the moment that file is replaced, and the old
ones before. Local fragments are written into a folder of their own. When they are committed, `labels` is renamed out of the way and
the new folder takes its name: readers that list `labels` see the old files, for an instant none, then the new ones; never both. An
object store cannot rename: such readers see both sets there until the old one is removed. If a compaction dies, the next one, or
`mlcls gc`, finishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.fragments import fragment_paths, fragment_schema, is_first_layout, read_fragment
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.ledger import Fragment, fragment_names, write_fragment_file
from mlcls_ray.table.records import (
    CLOCK_TOLERANCE,
    Success,
    read_latest,
    read_record,
    read_success,
    write_latest,
    write_success,
)

ROWS = 250_000
"""Rows of a compacted fragment. Merging one takes a few hundred megabytes of memory."""
STEPS = ("written", "journaled", "committed", "renamed")
"""The steps of a local compaction, in order: after each of them a compaction that dies leaves another state."""


def compact(store: Store, run_id: str, rows: int = ROWS, on_step: Callable[[str], None] = lambda step: None) -> Success:
    """Rewrite a committed run's table in fragments of `rows` rows, each sorted by row id, if it has more than it needs or old ones.

    A run that was committed in the future (the clock was ahead) gets the present time.

    Args:
        store: The output.
        run_id: A committed run.
        rows: Rows per fragment.
        on_step: Called with the name of each of `STEPS` when it is done.

    Raises:
        UsageError: the run is not committed.
        LeaseError: another process works on it.
    """
    with run_lease(store, run_id) as lease:
        success = finish(store, run_id)
        if success is None:
            raise UsageError(f"run '{run_id}' is not committed: only a complete run can be compacted")
        success = _dated(store, success)
        paths = fragment_paths(store, success)
        if len(paths) <= -(-success.rows // rows) and not _has_old_rows(store, run_id, paths):
            return success
        fragments = _write(store, success, paths, rows)
        on_step("written")
        lease.check()
        if store.is_local:
            store.write(layout.replaced(run_id), store.read(layout.success(run_id)) or b"")
            on_step("journaled")
        compacted = success.model_copy(update={"fragments": fragments})
        write_success(store, compacted)
        on_step("committed")
        finish(store, run_id)
        on_step("renamed")
        return compacted


def finish(store: Store, run_id: str) -> Success | None:
    """Finish what died in a run's folder: put the committed fragments into `labels`, and remove all others.

    Returns:
        What is committed; None for a run that is not.
    """
    _finish_version_0_1(store, run_id)
    success = read_success(store, run_id)
    if success is None:
        store.remove_folder(layout.compacted_folder(run_id))
        return None
    labels, waiting, replaced = (
        folder(run_id) for folder in (layout.labels_folder, layout.compacted_folder, layout.replaced_folder)
    )
    if any(path.startswith(f"{waiting}/") for path in fragment_paths(store, success)):
        store.remove_folder(replaced)
        if labels.rpartition("/")[2] in store.names(layout.run_folder(run_id)):
            store.rename_folder(labels, replaced)
        store.rename_folder(waiting, labels)
    store.remove(layout.replaced(run_id))
    store.remove_folder(replaced)
    store.remove_folder(waiting)
    listed = {fragment.name for fragment in success.fragments}
    for name in sorted(set(fragment_names(store, run_id)) - listed):
        store.remove(f"{labels}/{name}")
    return success


def _finish_version_0_1(store: Store, run_id: str) -> None:
    """Finish a compaction of version 0.1, which exchanged the folders before it replaced `_SUCCESS`."""
    journal = store.read(layout.compaction(run_id))
    if journal is None:
        return
    compacted = Success.model_validate_json(journal)
    if {fragment.name for fragment in compacted.fragments} == set(fragment_names(store, run_id)):
        write_success(store, compacted)
    store.remove(layout.compaction(run_id))


def _dated(store: Store, success: Success) -> Success:
    """Give a run that was committed in the future the present time, in `_SUCCESS` and in `latest.json`."""
    now = datetime.now(timezone.utc)
    if success.committed_at > now + CLOCK_TOLERANCE:
        success = success.model_copy(update={"committed_at": now})
        write_success(store, success)
    latest = read_latest(store)
    if latest and latest.run_id == success.run_id and latest.committed_at != success.committed_at:
        write_latest(store, success)
    return success


def _has_old_rows(store: Store, run_id: str, paths: list[str]) -> bool:
    """Return whether a fragment is of the first layout. A run that has a number was begun after it."""
    record = read_record(store, run_id)
    is_numbered = record is not None and record.number > 0
    return not is_numbered and any(is_first_layout(fragment_schema(store, path)) for path in paths)


def _write(store: Store, success: Success, paths: list[str], rows: int) -> list[Fragment]:
    """Write the new fragments where no reader looks for them: on an object store into `labels`, under names that `_SUCCESS` lacks."""
    run_id = success.run_id
    attempt = max((layout.attempt_of(fragment.name) for fragment in success.fragments), default=0) + 1
    folder = layout.compacted_folder(run_id) if store.is_local else layout.labels_folder(run_id)
    return [
        write_fragment_file(store, folder, layout.fragment_name(attempt, task), table)
        for task, table in enumerate(_merged(store, paths, rows))
    ]


def _merged(store: Store, paths: list[str], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of fragments in tables of `rows` rows, and a last one of the rest."""
    pending: list[pa.Table] = []
    count = 0
    for path in paths:
        table = read_fragment(store, path)
        pending.append(table)
        count += table.num_rows
        while count >= rows:
            merged = pa.concat_tables(pending)
            yield merged.slice(0, rows).sort_by(schema.ROW_ID)
            pending, count = [merged.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(pending).sort_by(schema.ROW_ID)

"""`mlcls compact`: merge small fragments.

Readers that follow `_SUCCESS` (`open_labels`, `mlcls query`) see the new fragments from the moment that file is replaced. For readers that
list the folder, a local disk exchanges the old folder and the new one in one step. An object store cannot: such readers see both sets of
fragments until the old one is removed. If a compaction dies, the next one finishes or undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.ledger import fragment_names, write_fragment_file
from mlcls_ray.table.records import Success, read_success

ROWS = 250_000
"""Rows of a compacted fragment. Merging one takes a few hundred megabytes of memory."""
STEPS = ("written", "journaled", "exchanged", "committed")
"""The steps of a local compaction, in order: after each of them a compaction that dies leaves another state."""


def compact(store: Store, run_id: str, rows: int = ROWS, on_step: Callable[[str], None] = lambda step: None) -> Success:
    """Rewrite a committed run's table in fragments of `rows` rows, each sorted by row id.

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
        if len(success.fragments) <= -(-success.rows // rows):
            return success
        attempt = max(layout.attempt_of(fragment.name) for fragment in success.fragments) + 1
        folder = layout.compacted_folder(run_id) if store.is_local else layout.labels_folder(run_id)
        fragments = [
            write_fragment_file(store, folder, layout.fragment_name(attempt, task), table)
            for task, table in enumerate(_merged(store, success, rows))
        ]
        on_step("written")
        compacted = success.model_copy(update={"fragments": fragments, "committed_at": datetime.now(timezone.utc)})
        lease.check()
        if store.is_local:
            store.write_json(layout.compaction(run_id), compacted.model_dump(mode="json"))
            on_step("journaled")
            store.swap_folders(layout.labels_folder(run_id), layout.compacted_folder(run_id))
            on_step("exchanged")
        store.write_json(layout.success(run_id), compacted.model_dump(mode="json"))
        on_step("committed")
        return finish(store, run_id) or compacted


def finish(store: Store, run_id: str) -> Success | None:
    """Finish a compaction that died: commit it if its folder is in place, remove its files if not. Returns what is committed then."""
    journal = store.read_json(layout.compaction(run_id))
    if journal is not None:
        compacted = Success.model_validate(journal)
        if {fragment.name for fragment in compacted.fragments} == set(fragment_names(store, run_id)):
            store.write_json(layout.success(run_id), journal)
        store.remove(layout.compaction(run_id))
    store.remove_folder(layout.compacted_folder(run_id))
    success = read_success(store, run_id)
    if success is not None:
        listed = {fragment.name for fragment in success.fragments}
        for name in set(fragment_names(store, run_id)) - listed:
            store.remove(f"{layout.labels_folder(run_id)}/{name}")
    return success


def _merged(store: Store, success: Success, rows: int) -> Iterator[pa.Table]:
    """Yield the run's rows in tables of `rows` rows, and a last one of the rest."""
    pending: list[pa.Table] = []
    count = 0
    for fragment in success.fragments:
        table = store.read_columns(f"{layout.labels_folder(success.run_id)}/{fragment.name}", None)
        pending.append(table)
        count += table.num_rows
        while count >= rows:
            merged = pa.concat_tables(pending)
            yield merged.slice(0, rows).sort_by(schema.ROW_ID)
            pending, count = [merged.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(pending).sort_by(schema.ROW_ID)

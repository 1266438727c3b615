"""`mlcls compact`: many fragments → few.

Readers that go by `_SUCCESS` (`open_labels`, `mlcls query`) switch in the moment that it is replaced. For readers that go by the folder
alone, the folders are exchanged in one step on a local disk; an object store has no such step, and shows them both sets until the
old one is removed. A compaction that dies is finished, or undone, by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.lease import held_lease
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, fragment_names, write_fragment_file
from mlcls_ray.table.records import Success, read_success

ROWS = 250_000
"""Of a compacted fragment: a few hundred megabytes while it is made."""


def compact(store: Store, run_id: str, rows: int = ROWS) -> Success:
    """Rewrite a committed run's table in fragments of `rows` rows, sorted by row id within each.

    Raises:
        UsageError: the run is not committed.
        LeaseError: another process works on it.
    """
    with held_lease(store, run_id) as lease:
        success = finish(store, run_id)
        if success is None:
            raise UsageError(f"run '{run_id}' is not committed: only what is complete can be compacted")
        if len(success.fragments) <= -(-success.rows // rows):
            return success
        attempt = max(layout.attempt_of(fragment.name) for fragment in success.fragments) + 1
        folder = layout.compacted_folder(run_id) if store.is_local else layout.labels_folder(run_id)
        fragments = [
            write_fragment_file(store, folder, layout.fragment_name(attempt, task), table)
            for task, table in enumerate(_merged(store, success, rows))
        ]
        compacted = success.model_copy(update={"fragments": fragments, "committed_at": datetime.now(timezone.utc)})
        lease.check()
        if store.is_local:
            store.write_json(layout.compaction(run_id), compacted.model_dump(mode="json"))
            store.swap_folders(layout.labels_folder(run_id), layout.compacted_folder(run_id))
        store.write_json(layout.success(run_id), compacted.model_dump(mode="json"))
        return finish(store, run_id) or compacted


def finish(store: Store, run_id: str) -> Success | None:
    """Complete what a compaction has begun: commit what is in place, remove what is not. Returns what is committed then."""
    told = store.read_json(layout.compaction(run_id))
    if told is not None:
        compacted = Success.model_validate(told)
        if {fragment.name for fragment in compacted.fragments} == set(fragment_names(store, run_id)):
            store.write_json(layout.success(run_id), told)
        store.remove(layout.compaction(run_id))
    store.remove_folder(layout.compacted_folder(run_id))
    success = read_success(store, run_id)
    if success is not None:
        listed = {fragment.name for fragment in success.fragments}
        for name in set(fragment_names(store, run_id)) - listed:
            store.remove(f"{layout.labels_folder(run_id)}/{name}")
    return success


def _merged(store: Store, success: Success, rows: int) -> Iterator[pa.Table]:
    """Tables of `rows` rows each, and a last one of what is left."""
    waiting: list[pa.Table] = []
    count = 0
    for fragment in success.fragments:
        table = _read(store, success.run_id, fragment)
        waiting.append(table)
        count += table.num_rows
        while count >= rows:
            together = pa.concat_tables(waiting)
            yield together.slice(0, rows).sort_by(schema.ROW_ID)
            waiting, count = [together.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting).sort_by(schema.ROW_ID)


def _read(store: Store, run_id: str, fragment: Fragment) -> pa.Table:
    return store.read_columns(f"{layout.labels_folder(run_id)}/{fragment.name}", None)

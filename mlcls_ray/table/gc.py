"""`mlcls gc`: find and remove what dead processes left behind. Files of a run that can be resumed, or is running, are not leftovers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.lease import read_claims
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.compact import finish
from mlcls_ray.table.fragments import fragment_paths
from mlcls_ray.table.leases import is_being_worked_on, run_lease
from mlcls_ray.table.ledger import fragment_names
from mlcls_ray.table.records import point_to_newest, read_latest, read_record, read_success

OLD_S = 3600.0
"""Age in seconds from which on a temporary file counts as left behind: a younger one may still be written."""


class Leftover(NamedTuple):
    """A file or a folder under OUT that can go, and why."""

    name: str
    reason: str
    is_folder: bool = False


def find_leftovers(store: Store, older_than_s: float = OLD_S) -> list[Leftover]:
    """List what can be removed from an output, and a `latest.json` that is to be corrected."""
    leftovers = [
        Leftover(name, "half-written file")
        for folder in ("", layout.CORRECTIONS, layout.THRESHOLDS)
        for name in store.leftovers(folder, older_than_s)
    ]
    removed = (name for name in store.names("") if name.startswith(layout.REMOVED))
    leftovers += [Leftover(name, "a run that `mlcls prune` was removing", is_folder=True) for name in removed]
    for run_id in store.names(layout.RUNS):
        if is_being_worked_on(store, run_id):
            continue
        reason = _never_committed(store, run_id)
        if reason:
            leftovers.append(Leftover(layout.run_folder(run_id), reason, is_folder=True))
        else:
            leftovers += _leftovers_of_run(store, run_id, older_than_s)
    if not _names_a_run(store):
        leftovers.append(Leftover(layout.LATEST, "names no committed run; the newest one is named instead"))
    return leftovers


def _never_committed(store: Store, run_id: str) -> str | None:
    """Say why a run can neither be read nor resumed; None if it can."""
    if store.read(layout.success(run_id)) is not None:
        return None
    if store.read(layout.run_json(run_id)) is None:
        return "a run whose listing did not finish"
    record = read_record(store, run_id)
    return "a relabeling that did not finish" if record and record.relabeled_from else None


def _names_a_run(store: Store) -> bool:
    """Return whether `latest.json` points to a committed run, or does not exist."""
    try:
        latest = read_latest(store)
    except UsageError:
        return False
    if latest is None:
        return True
    is_committed = store.read(layout.success(latest.run_id)) is not None
    return is_committed and latest.labels == layout.labels_folder(latest.run_id)


def _leftovers_of_run(store: Store, run_id: str, older_than_s: float) -> Iterator[Leftover]:
    for folder in (layout.run_folder(run_id), *layout.run_folders(run_id)):
        for name in store.leftovers(folder, older_than_s):
            yield Leftover(name, "half-written file")
    for claim in read_claims(store, layout.lease_folder(run_id)):
        yield Leftover(f"{layout.lease_folder(run_id)}/{claim.owner}.json", "claim of a dead driver")
    success = read_success(store, run_id)
    if success is None:
        return
    is_staged = any(path.startswith(layout.compacted_folder(run_id)) for path in fragment_paths(store, success))
    for folder in (layout.compacted_folder(run_id), layout.replaced_folder(run_id)):
        if store.names(folder):
            yield Leftover(folder, "interrupted compaction", is_folder=True)
    if store.read(layout.compaction(run_id)) is None and not is_staged:
        listed = {fragment.name for fragment in success.fragments}
        for name in sorted(set(fragment_names(store, run_id)) - listed):
            yield Leftover(
                f"{layout.labels_folder(run_id)}/{name}", "not in _SUCCESS: written late by a dead driver's worker"
            )


def remove_leftovers(store: Store, leftovers: list[Leftover]) -> None:
    """Remove leftovers. A compaction that died is finished or undone first."""
    runs = {leftover.name.split("/")[1] for leftover in leftovers if leftover.name.startswith(f"{layout.RUNS}/")}
    for run_id in runs:
        with run_lease(store, run_id):
            finish(store, run_id)
    for leftover in leftovers:
        if leftover.name == layout.LATEST:
            point_to_newest(store)
        elif leftover.is_folder:
            store.remove_folder(leftover.name)
        else:
            store.remove(leftover.name)

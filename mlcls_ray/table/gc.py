"""`mlcls gc`: what died leaves behind. Nothing of a run that can be resumed, or is going on, is a leftover."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mlcls_ray.storage.lease import held_lease, living_claims, read_claims
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.compact import finish
from mlcls_ray.table.ledger import fragment_names
from mlcls_ray.table.records import read_success

OLD_S = 3600.0
"""A temporary file is left alone for so long: its writer may be at work."""


class Leftover(NamedTuple):
    """A file or a folder under OUT, and why nobody needs it."""

    name: str
    reason: str
    is_folder: bool = False


def find_leftovers(store: Store, older_than_s: float = OLD_S) -> list[Leftover]:
    """What can go."""
    found = [Leftover(name, "half written") for name in store.leftovers("", older_than_s)]
    for run_id in store.names(layout.RUNS):
        if living_claims(store, run_id):
            continue
        if store.read(layout.run_json(run_id)) is None:
            found.append(Leftover(layout.run_folder(run_id), "of a listing that never ended", is_folder=True))
        else:
            found += _of_run(store, run_id, older_than_s)
    return found


def _of_run(store: Store, run_id: str, older_than_s: float) -> Iterator[Leftover]:
    for folder in (layout.run_folder(run_id), *layout.run_folders(run_id)):
        for name in store.leftovers(folder, older_than_s):
            yield Leftover(name, "half written")
    for claim in read_claims(store, layout.lease_folder(run_id)):
        yield Leftover(f"{layout.lease_folder(run_id)}/{claim.owner}.json", "the claim of a dead driver")
    success = read_success(store, run_id)
    if success is None:
        return
    if store.names(layout.compacted_folder(run_id)):
        yield Leftover(layout.compacted_folder(run_id), "of a compaction that died", is_folder=True)
    if store.read(layout.compaction(run_id)) is None:
        listed = {fragment.name for fragment in success.fragments}
        for name in sorted(set(fragment_names(store, run_id)) - listed):
            yield Leftover(f"{layout.labels_folder(run_id)}/{name}", "not in _SUCCESS: of a dead driver's late worker")


def remove_leftovers(store: Store, leftovers: list[Leftover]) -> None:
    """Remove them; a compaction that died is finished or undone first."""
    for run_id in {name.split("/")[1] for name, _, _ in leftovers if name.startswith(f"{layout.RUNS}/")}:
        with held_lease(store, run_id):
            finish(store, run_id)
    for leftover in leftovers:
        (store.remove_folder if leftover.is_folder else store.remove)(leftover.name)

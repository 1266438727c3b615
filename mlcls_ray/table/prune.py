"""`mlcls prune`: retention. A run goes when it is old and each of its rows has a newer one; the newest row of a uri never goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.lease import held_lease, living_claims
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.records import read_success
from mlcls_ray.table.views import superseded_rows

UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def parse_age(text: str) -> timedelta:
    """`30d`, `12h`, `8w`.

    Raises:
        UsageError: anything else.
    """
    match = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if match is None:
        raise UsageError(f"--keep: '{text}' is not an age: write a number and h, d or w, as in 30d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def find_superseded(store: Store, keep: timedelta) -> list[str]:
    """Runs that were committed longer ago than `keep`, hold no uri's newest row, and recorded nothing that vanished."""
    committed = {
        run_id: success for run_id in store.names(layout.RUNS) if (success := read_success(store, run_id)) is not None
    }
    before = datetime.now(timezone.utc) - keep
    old = [run_id for run_id, success in committed.items() if success.committed_at < before]
    if not old:
        return []
    superseded = superseded_rows(store, {run_id: success.rows for run_id, success in committed.items()})
    return [
        run_id
        for run_id in old
        if len(superseded[run_id]) == committed[run_id].rows
        and layout.VANISHED not in store.names(layout.run_folder(run_id))
        and not living_claims(store, run_id)
    ]


def remove_runs(store: Store, names: Sequence[str]) -> None:
    """Remove runs: first what makes them visible, so that one that is half removed is seen by no reader.

    Raises:
        LeaseError: another process works on one.
    """
    for run_id in names:
        with held_lease(store, run_id):
            store.remove(layout.success(run_id))
            store.remove(layout.run_json(run_id))
        store.remove_folder(layout.run_folder(run_id))

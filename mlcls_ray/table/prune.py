"""`mlcls prune`: remove old runs whose rows have all been superseded. The newest row of each uri is always kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.leases import is_being_worked_on, run_lease
from mlcls_ray.table.records import check_clock, point_to_newest, read_latest, read_successes
from mlcls_ray.table.views import superseded_rows

UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def parse_age(text: str) -> timedelta:
    """Parse an age such as `30d`, `12h` or `8w`.

    Raises:
        UsageError: the text is not an age.
    """
    match = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if match is None:
        raise UsageError(f"--keep: '{text}' is not an age: write a number and h, d or w, as in 30d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def find_superseded(store: Store, keep: timedelta) -> list[str]:
    """List the runs that were committed longer ago than `keep`, hold no uri's newest row, and recorded no vanished input.

    Raises:
        UsageError: the newest run was committed in the future: ages cannot be told.
    """
    check_clock(store)
    committed = read_successes(store)
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
        and not is_being_worked_on(store, run_id)
    ]


def remove_runs(store: Store, run_ids: Sequence[str]) -> None:
    """Remove runs. A local run leaves in one step. On an object store `_SUCCESS` and `run.json` go first: no reader sees half a run.

    Raises:
        LeaseError: another process works on one of the runs.
    """
    latest = read_latest(store)
    if latest and latest.run_id in run_ids:
        point_to_newest(store, without=run_ids)
    for run_id in run_ids:
        folder = layout.run_folder(run_id)
        with run_lease(store, run_id):
            if store.is_local:
                folder = layout.removed_folder(run_id)
                store.remove_folder(folder)
                store.rename_folder(layout.run_folder(run_id), folder)
            else:
                store.remove(layout.success(run_id))
                store.remove(layout.run_json(run_id))
        store.remove_folder(folder)

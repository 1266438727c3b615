"""`mlcls retry`: the job that labels again what failed."""

from __future__ import annotations

from mlcls_ray.config import LabelJob, make_job
from mlcls_ray.errors import Status, UsageError, suggest
from mlcls_ray.storage.store import Store
from mlcls_ray.table.records import newest_record, no_runs, read_record, read_success, run_ids


def retry_job(out: str, statuses: tuple[str, ...], run_id: str | None, max_failures: str | None) -> LabelJob:
    """The newest committed run's job, for the inputs whose newest row has one of the statuses.

    Raises:
        UsageError: an unknown status, `ok`, or no committed run.
    """
    known = [status.value for status in Status if status is not Status.OK]
    for status in statuses:
        if status not in known:
            raise UsageError(f"unknown status '{status}'{suggest(status, known)}")
    store = Store(out)
    records = [read_record(store, name) for name in run_ids(store) if read_success(store, name)]
    newest = newest_record(records)
    if newest is None:
        raise no_runs(store)
    changes = {
        "out": out,
        "retry": statuses,
        "run_id": run_id,
        "max_failures": max_failures,
        "incremental": False,
        "limit": None,
    }
    return make_job({**newest.config, **changes}, f"run '{newest.run_id}': ")

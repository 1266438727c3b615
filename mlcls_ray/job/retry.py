"""`mlcls retry`: the job that labels again what failed."""

from __future__ import annotations

from mlcls_ray.config import RENAMED, LabelJob, S3Options
from mlcls_ray.config_file import make_job
from mlcls_ray.errors import Status, UsageError, suggest
from mlcls_ray.table.output import open_output
from mlcls_ray.table.records import newest_record, no_runs, read_record, read_success, run_ids


def retry_job(
    out: str, statuses: tuple[str, ...], run_id: str | None, max_failures: str | None, s3: S3Options | None = None
) -> LabelJob:
    """The newest committed run's job, for the inputs whose newest row has one of the statuses.

    Raises:
        UsageError: an unknown status, `ok`, or no committed run.
    """
    known = [status.value for status in Status if status is not Status.OK]
    for status in statuses:
        if status not in known:
            raise UsageError(f"unknown status '{status}'{suggest(status, known)}")
    store = open_output(out, s3)
    records = [read_record(store, name) for name in run_ids(store) if read_success(store, name)]
    newest = newest_record(records)
    if newest is None:
        raise no_runs(store)
    changes = {
        "out": out,
        "s3": store.s3,
        "retry": statuses,
        "run_id": run_id,
        "max_failures": max_failures,
        "incremental": False,
        "limit": None,
    }
    fields = {RENAMED.get(name, name): value for name, value in newest.config.items()}
    return make_job({**fields, **changes}, f"run '{newest.run_id}': ")

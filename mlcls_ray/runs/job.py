"""A job from its checks to its commit; `pipeline` is the labeling itself."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from importlib import import_module

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import FailureLimitError
from mlcls_ray.runs.cluster import check_device_on_workers, connect, living_nodes
from mlcls_ray.runs.commit import commit
from mlcls_ray.runs.lease import Lease, held_incremental_lease, held_lease
from mlcls_ray.runs.plan import Prepared, freeze, list_work, prepare
from mlcls_ray.runs.pools import check_resources
from mlcls_ray.runs.publish import publish
from mlcls_ray.runs.records import Success, read_success
from mlcls_ray.storage import layout
from mlcls_ray.storage.ledger import failures


def label(job: LabelJob, verbose: bool = False) -> Success | None:
    """Run a job to its commit; a run that is committed already is left as it is.

    Returns:
        What was committed; None where an incremental job found nothing new, and wrote nothing.

    Raises:
        UsageError: before anything starts.
        RunError: a run that could not be finished (a LeaseError: another driver works on it); the same command resumes it.
    """
    prepared = prepare(job)
    store = prepared.store
    if prepared.is_committed and (committed := read_success(store, prepared.run_id)):
        publish(store, job.format)
        return committed
    with (
        held_incremental_lease(store) if job.incremental else nullcontext(),
        held_lease(store, prepared.run_id) as lease,
    ):
        success = label_prepared(prepared, lease, verbose)
    if success is None:
        store.remove_folder(layout.run_folder(prepared.run_id))
        return None
    publish(store, job.format)
    limit = job.failure_limit(success.rows)
    if limit is not None and failures(success.fragments) > limit:
        raise FailureLimitError(
            f"run '{success.run_id}' is committed, but {failures(success.fragments):,} of {success.rows:,} inputs failed; "
            f"max_failures is {job.max_failures}"
        )
    return success


def label_prepared(prepared: Prepared, lease: Lease, verbose: bool) -> Success | None:
    """List, label and commit; None where an incremental job or a retry found nothing to do."""
    listed = None
    if (prepared.job.incremental or prepared.job.retry) and prepared.record is None:
        listed = list_work(prepared)  # before Ray: most nights there is nothing to start it for
        if listed is None:
            return None
    # Ray's processes take some seconds to start, in which this one would only wait.
    importing = threading.Thread(target=import_module, args=("mlcls_ray.runs.pipeline",), daemon=True)
    importing.start()
    connect(prepared.job.ray_address, verbose, prepared.device)
    importing.join()
    from mlcls_ray.runs.pipeline import label_waves

    nodes = living_nodes()
    check_resources(prepared.device, nodes)
    if prepared.device.kind != "cpu":
        check_device_on_workers(prepared.device)
    plan = freeze(prepared, nodes, listed)
    started = time.monotonic()
    plan, fragments, stage_seconds = label_waves(plan)
    lease.check()
    return commit(plan, fragments, time.monotonic() - started, stage_seconds)

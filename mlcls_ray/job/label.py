"""A job from its checks to its commit; `pipeline` is the labeling itself."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import FailureLimitError, UsageError, resumable_error, short_message
from mlcls_ray.job.cluster import check_device_on_workers, connect, living_nodes
from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import NO_OUTPUT, Prepared, freeze, list_work, prepare
from mlcls_ray.job.pools import check_resources
from mlcls_ray.models.cache import open_model
from mlcls_ray.storage.lease import Lease, held_incremental_lease, held_lease
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import failures
from mlcls_ray.table.publish import publish
from mlcls_ray.table.records import Success, read_success


def label(job: LabelJob, verbose: bool = False) -> Success | None:
    """Run a job to its commit; a run that is committed already is left as it is.

    Returns:
        What was committed (of several models: by the first one); None where an incremental job found nothing new, and wrote nothing.

    Raises:
        UsageError: before anything starts.
        RunError: a run that could not be finished (a LeaseError: another driver works on it); the same command resumes it.
    """
    models = prepare_models(job)
    left = [one for one in models if not one.is_committed]
    with ExitStack() as held:
        if job.incremental and left:
            held.enter_context(held_incremental_lease(left[0].store))
        leases = [held.enter_context(held_lease(one.store, one.run_id)) for one in left]
        try:
            made = label_prepared(left, leases, verbose) if left else []
        except OSError as error:  # this process's own files: the list of the work, the ledger, the commit
            raise resumable_error(left[0].run_id, f"stopped: {short_message(error)}") from error
    if left and not made:  # not before the lease, which is in that folder, is given back
        left[0].store.remove_folder(layout.run_folder(left[0].run_id))
        return None
    for one in models:
        publish(one.store, job.format)
    success = read_success(models[0].store, models[0].run_id) if models[0].is_committed else made[0]
    limit = job.failure_limit(success.rows) if success and left else None
    if success and limit is not None and failures(success.fragments) > limit:
        raise FailureLimitError(
            f"run '{success.run_id}' is committed, but {failures(success.fragments):,} of {success.rows:,} inputs failed; "
            f"max_failures is {job.max_failures}"
        )
    return success


def outputs(job: LabelJob) -> list[str]:
    """The output folder of each of the job's models, in the order of `models`.

    Raises:
        UsageError: `models` does not go together with what else the job says.
    """
    if not job.models:
        return [job.out]
    for name, is_asked in {"incremental": job.incremental, "retry": job.retry, "dedupe": job.dedupe}.items():
        if is_asked:
            raise UsageError(f"models: {name} looks into one model's table; run the job once for each model")
    names = [open_model(model, job.s3).name for model in job.models]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"models: '{twice[0]}' is there more than once, and each model's output is named after it")
    return [f"{job.out.rstrip('/')}/{name}" for name in names]


def prepare_models(job: LabelJob) -> list[Prepared]:
    """Check a job for each of its models; one run id for all of them.

    Raises:
        UsageError: names the field, the value and the way out.
    """
    if not job.models:
        return [prepare(job)]
    if not job.out:
        raise UsageError(NO_OUTPUT)
    changes = [{"model": model, "out": out} for model, out in zip(job.models, outputs(job), strict=True)]
    jobs = [job.model_copy(update={**one, "models": ()}) for one in changes]
    models = [prepare(one) for one in jobs]
    # What one model committed already another one may have left unfinished.
    begun = next((one for one in models if one.record and not one.is_committed), models[0])
    return [
        told if told.run_id == begun.run_id else prepare(one.model_copy(update={"run_id": begun.run_id}))
        for one, told in zip(jobs, models, strict=True)
    ]


def label_prepared(models: Sequence[Prepared], leases: Sequence[Lease], verbose: bool) -> list[Success]:
    """List, label and commit, for each model; empty where an incremental job or a retry found nothing to do."""
    prepared, *others = models
    listed = None
    if (prepared.job.incremental or prepared.job.retry) and prepared.record is None:
        listed = list_work(prepared)  # before Ray: most nights there is nothing to start it for
        if listed is None:
            return []
    # Ray's processes take some seconds to start, in which this one would only wait.
    importing = threading.Thread(target=import_module, args=("mlcls_ray.job.pipeline",), daemon=True)
    importing.start()
    connect(prepared.job.ray_address, verbose, prepared.device)
    importing.join()
    from mlcls_ray.job.pipeline import label_waves

    nodes = living_nodes()
    check_resources(prepared.device, nodes)
    if prepared.device.kind != "cpu":
        check_device_on_workers(prepared.device)
    plan = freeze(prepared, nodes, listed, others)
    started = time.monotonic()
    plan, written, stage_seconds = label_waves(plan)
    for lease in leases:
        lease.check()
    seconds = time.monotonic() - started
    return [commit(one, fragments, seconds, stage_seconds) for one, fragments in zip(plan.models, written, strict=True)]

"""A labeling job, from its checks to its commit: check → plan → label → commit."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.config_file import make_job
from mlcls_ray.engines.devices import check_device
from mlcls_ray.errors import FailureLimitError, UsageError, resumable_error, short_message, suggest
from mlcls_ray.job.check import CheckedJob, check_before_ray, check_job
from mlcls_ray.job.cluster import check_device_on_workers, connect, starts_ray
from mlcls_ray.job.commit import commit
from mlcls_ray.job.listing import Listed, list_pending
from mlcls_ray.job.placement import Probe, choose_placement, start_trial, try_on_worker
from mlcls_ray.job.plan import plan_run
from mlcls_ray.stages.spec import Stage
from mlcls_ray.storage.connection import is_connection_failure
from mlcls_ray.storage.lease import Lease
from mlcls_ray.table import layout
from mlcls_ray.table.label_table import LabelTable, open_labels
from mlcls_ray.table.leases import incremental_lease, run_lease
from mlcls_ray.table.ledger import failures
from mlcls_ray.table.publish import publish
from mlcls_ray.table.records import InputChanges, RunRecord, Success, read_record, read_success
from mlcls_ray.terminal import SILENT, Steps, showing_steps


class LabelResult(BaseModel):
    """A finished job."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    outputs: dict[str, str]
    """The output that each model wrote to, by the model's name."""
    rows: int
    """Rows of the run; 0 where an incremental job or a retry found nothing to do, and wrote nothing."""
    statuses: dict[str, int]
    """Rows by status; of several models, the first one's."""
    seconds: float
    """Wall time of the labeling, from the start of the workers on."""
    labeled: int
    """Rows that were labeled in that time; the others were there from calls that were interrupted."""
    left_out: dict[str, int]
    """Files of the inputs that are no images by their names, by suffix."""
    changes: InputChanges | None
    """The finds of an incremental job in its inputs, also where there was nothing to do; None for other jobs."""
    is_new: bool
    """False where the run was committed before, or there was nothing to do."""
    s3: S3Options

    @property
    def path(self) -> str:
        """The folder of the run's label table, for any reader of Parquet; of several models, the first one's."""
        return f"{next(iter(self.outputs.values()))}/{layout.labels_folder(self.run_id)}"

    def open(self, model: str | None = None) -> LabelTable:
        """Open the label table of this run. `model`: whose, where there are several; default: the first one's.

        Raises:
            UsageError: there is no such model.
        """
        name = model or next(iter(self.outputs))
        if name not in self.outputs:
            raise UsageError(f"model '{name}' labeled nothing in this run{suggest(name, self.outputs)}")
        return open_labels(self.outputs[name], self.s3, self.run_id)


def label(job: LabelJob | None = None, *, verbose: bool = False, **fields: Any) -> LabelResult:
    """Label images, and wait for the end: `label(inputs=["photos"], out="labels")`, or `label(job)`.

    Uses the Ray that this process is connected to, else RAY_ADDRESS, else starts one on this machine. A run that is committed already is
    left as it is; one that was interrupted is resumed.

    Args:
        verbose: show Ray's own messages.
        fields: the fields of `LabelJob`; they override those of `job`.

    Raises:
        UsageError: before anything starts; names the field, the value and the way out.
        RunError: the run could not be finished (a LeaseError: another driver works on it). The same call resumes it.
    """
    if fields or job is None:
        job = make_job({**(job.model_dump() if job else {}), **fields})
    with showing_steps() as steps:
        steps.say("opening the model and the output", on_terminal_only=True)
        checked = check_job(job)
        return result_of(checked, run_job(checked, verbose, steps=steps))


class Finished(NamedTuple):
    """The end of a job."""

    successes: list[Success]
    """The commit of each model; empty where an incremental job or a retry found nothing to do."""
    listed: Listed | None
    """The listing for a new run; None where a run was resumed, or was committed before."""


def result_of(checked: CheckedJob, finished: Finished) -> LabelResult:
    """Describe a finished job, for Python and as JSON."""
    first = next(iter(finished.successes), None)
    record = read_record(checked.models[0].store, checked.run_id) if first else None
    found: RunRecord | Listed | None = record or finished.listed
    return LabelResult(
        run_id=checked.run_id,
        outputs={model.name: model.store.root for model in checked.models},
        rows=first.rows if first else 0,
        statuses=first.statuses if first else {},
        seconds=first.seconds if first else 0.0,
        labeled=first.labeled_rows if first else 0,
        left_out=dict(found.left_out) if found else {},
        changes=found.changes if found else None,
        is_new=bool(first) and not all(checked.committed),
        s3=checked.job.s3,
    )


def run_job(
    checked: CheckedJob, verbose: bool = False, stages: Sequence[type[Stage]] | None = None, steps: Steps = SILENT
) -> Finished:
    """Run a job to its commit.

    Args:
        stages: the classes to run in place of the placement's own, for tests and measurements.
        steps: told what the job does before and after the labeling.

    Raises:
        RunError: see `label`.
    """
    pending, job = checked.pending, checked.job
    is_nightly = bool(job.incremental or job.retry)
    # A nightly job has listed its inputs before it knows whether it needs a device.
    probe = check_while_importing(pending) if pending.models and not is_nightly else None
    listed: Listed | None = None
    with ExitStack() as held:
        if job.incremental and pending.models:
            held.enter_context(incremental_lease(pending.models[0].store))
        leases = [held.enter_context(run_lease(model.store, checked.run_id)) for model in pending.models]
        for model in pending.models:
            model.store.remove(layout.progress(checked.run_id))  # of a driver that was killed
        try:
            if is_nightly and pending.models and pending.records[0] is None:
                listed = list_pending(pending, steps)  # before Ray: most nights there is nothing to start it for
            if pending.models and not (listed and listed.is_nothing):
                label_pending(pending, leases, verbose, stages, probe or check_while_importing(pending), listed, steps)
        except Exception as error:  # this process's own files: the listing, the ledger, the commit
            if not isinstance(error, OSError) and not is_connection_failure(error):
                raise
            raise resumable_error(checked.run_id, f"stopped: {short_message(error)}") from error
    if listed and listed.is_nothing:  # not before the lease, which is in that folder, is given back
        pending.models[0].store.remove_folder(layout.run_folder(checked.run_id))
        return Finished([], listed)
    for model in checked.models:
        publish(model.store, job.format)
    successes = [success for model in checked.models if (success := read_success(model.store, checked.run_id))]
    if pending.models:
        check_failures(job, successes[0])
    return Finished(successes, listed)


def label_pending(
    checked: CheckedJob,
    leases: Sequence[Lease],
    verbose: bool,
    stages: Sequence[type[Stage]] | None,
    probe: Probe,
    listed: Listed | None,
    steps: Steps,
) -> None:
    """Plan, label and commit.

    Args:
        probe: what `check_while_importing` returned.
        listed: the manifest, where it has been listed.
    """
    job = checked.job
    is_here = starts_ray(job.ray_address)
    steps.say("starting Ray" if is_here else "connecting to Ray")
    connect(job.ray_address, verbose, checked.device)
    from mlcls_ray.job.capacity import wait_for_room
    from mlcls_ray.job.progress import STARTING
    from mlcls_ray.job.supervise import label_until_done

    nodes = wait_for_room(checked.device, job.workers, job.wait_s)
    if not checked.device.is_cpu and not is_here:
        steps.say(f"checking the {checked.device.resource} of the workers")
        check_device_on_workers(checked.device, job.engine)
    preprocesses = [model.model.preprocess for model in checked.models]
    checked = checked._replace(job=choose_placement(job, preprocesses, probe))
    run = plan_run(checked, nodes, listed, steps)
    started, done_before = time.monotonic(), len(run.done)
    steps.say(STARTING)
    steps.pause()  # a bar follows
    labeled = label_until_done(run, stages)
    steps.say("committing the run")
    for lease in leases:
        lease.check()
    seconds = time.monotonic() - started
    for model in labeled.run.models:
        fragments = labeled.fragments[model.name]
        commit(model, fragments, seconds, labeled.seconds, run.rows - done_before)


def check_while_importing(checked: CheckedJob) -> Probe:
    """Check the device and the models of a job that will label something. Raises as `check_before_ray`.

    Returns:
        The probe of the card's decoder, which may be running already.
    """
    is_here = starts_ray(checked.job.ray_address)
    probe: Probe = try_on_worker
    if is_here and checked.job.may_decode_on_card:
        check_device(checked.device, checked.job.engine, tries_network=False)  # at once, where there is no card
        probe = start_trial(checked.device)
    # The checks, and the start of Ray's processes, take seconds in which this one would only wait.
    threading.Thread(target=import_module, args=("mlcls_ray.job.supervise",), daemon=True).start()
    check_before_ray(checked, is_here)
    return probe


def check_failures(job: LabelJob, success: Success) -> None:
    """Check the failures of a run that is committed all the same.

    Raises:
        FailureLimitError: more inputs failed than the job allows.
    """
    limit, failed = job.failure_limit(success.rows), failures(success.fragments)
    if limit is not None and failed > limit:
        raise FailureLimitError(
            f"run '{success.run_id}' is committed, but {failed:,} of {success.rows:,} inputs failed; "
            f"max_failures is {job.max_failures}"
        )

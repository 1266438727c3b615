"""The job, read from top to bottom: manifest → read → score and select → annotate → sink → commit."""

from __future__ import annotations

import time
from typing import Any

import ray
import ray.data
import ray.exceptions

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import FailureLimitError, RunError, RunInterruptedError, Status
from mlcls_ray.runs.cluster import check_device_on_workers, connect, living_nodes
from mlcls_ray.runs.commit import commit
from mlcls_ray.runs.lease import Lease, held_lease
from mlcls_ray.runs.plan import Plan, Prepared, freeze, list_changes, prepare
from mlcls_ray.runs.pools import Pools, check_resources
from mlcls_ray.runs.progress import Tally, shown_progress, stopped_by_interrupt
from mlcls_ray.runs.records import Success, read_success
from mlcls_ray.runs.sink import LabelSink
from mlcls_ray.runs.workers import LabelWorker, ReadWorker, ScoreWorker, WorkerSpec, drop_done
from mlcls_ray.stages.read import ReadOptions
from mlcls_ray.storage import layout
from mlcls_ray.storage.ledger import Fragment


def label(job: LabelJob, verbose: bool = False) -> Success | None:
    """Run a job to its commit; a run that is committed already is left as it is.

    Returns:
        What was committed; None where an incremental job found nothing new, and wrote nothing.

    Raises:
        UsageError: before anything starts.
        RunError: a run that could not be finished (a LeaseError: another driver works on it); the same command resumes it.
    """
    prepared = prepare(job)
    if prepared.is_committed and (committed := read_success(prepared.store, prepared.run_id)):
        return committed
    with held_lease(prepared.store, prepared.run_id) as lease:
        success = label_prepared(prepared, lease, verbose)
    if success is None:
        prepared.store.remove_folder(layout.run_folder(prepared.run_id))
        return None
    limit = job.failure_limit(success.rows)
    if limit is not None and failures(success.fragments) > limit:
        raise FailureLimitError(
            f"run '{success.run_id}' is committed, but {failures(success.fragments):,} of {success.rows:,} inputs failed; "
            f"max_failures is {job.max_failures}"
        )
    return success


def label_prepared(prepared: Prepared, lease: Lease, verbose: bool) -> Success | None:
    """List, label and commit; None where an incremental job found nothing new."""
    listed = None
    if prepared.job.incremental and prepared.record is None:
        listed = list_changes(prepared)  # before Ray: most nights there is nothing to start it for
        if listed is None:
            return None
    connect(prepared.job.ray_address, verbose)
    nodes = living_nodes()
    check_resources(prepared.device, nodes)
    if prepared.device.kind != "cpu":
        check_device_on_workers(prepared.device)
    plan = freeze(prepared, nodes, listed)
    started = time.monotonic()
    fragments = label_remaining(plan) if len(plan.attempt.done) < plan.record.rows else []
    lease.check()
    return commit(plan, fragments, time.monotonic() - started)


def label_remaining(plan: Plan) -> list[Fragment]:
    """Label the rows that are in no fragment yet; returns the fragments that were written.

    Raises:
        RunError: the run stopped before its end; what is written is kept.
    """
    job, run_id, rows = plan.prepared.job, plan.prepared.run_id, plan.record.rows
    sink = LabelSink(plan.prepared.store, run_id, plan.attempt.number, plan.pools.rows_per_fragment)
    limit = job.failure_limit(rows)
    tally = Tally.remote(limit, failures(plan.attempt.accepted))  # type: ignore[attr-defined]
    go_on = f"What is written is kept; the same command (or --run-id {run_id}) goes on"
    try:
        with shown_progress(tally, rows, len(plan.attempt.done)), stopped_by_interrupt(tally):
            label_rows(manifest_rows(plan), plan.pools, worker_spec(plan, tally)).write_datasink(sink)
    except KeyboardInterrupt:
        raise RunInterruptedError(f"run '{run_id}' interrupted. {go_on}") from None
    except ray.exceptions.RayError as error:
        raise RunError(f"run '{run_id}' stopped: {cause(error)}. {go_on}") from error
    fragments = [*plan.attempt.accepted, *sink.fragments]
    done = sum(fragment.rows for fragment in fragments)
    if done < rows and ray.get(tally.is_stopped.remote()):
        failed = failures(fragments)
        if limit is not None and failed > limit:
            raise FailureLimitError(
                f"run '{run_id}' stopped: {failed:,} of {done:,} inputs failed, max_failures is {job.max_failures}. "
                f"What is written is kept; with a higher limit the same command goes on"
            )
        raise RunInterruptedError(f"run '{run_id}' stopped after {done:,} of {rows:,} rows. {go_on}")
    return sink.fragments


def failures(fragments: list[Fragment]) -> int:
    """How many rows of these fragments are not `ok`."""
    return sum(fragment.rows - fragment.statuses.get(Status.OK.value, 0) for fragment in fragments)


def manifest_rows(plan: Plan) -> ray.data.Dataset:
    """The rows of the manifest that are in no fragment yet, cut into blocks that spread over the workers."""
    path, filesystem = plan.prepared.store.data_path(layout.manifest_folder(plan.prepared.run_id))
    rows = ray.data.read_parquet(path, filesystem=filesystem)
    if len(plan.attempt.done):
        done = ray.put(plan.attempt.done.bits)
        rows = rows.map_batches(drop_done, batch_format="pyarrow", fn_kwargs={"done": done})
    # A manifest is small in bytes, so that Ray would make one block, one task and one fragment of it.
    return rows.repartition(target_num_rows_per_block=plan.pools.block_rows)


def label_rows(rows: ray.data.Dataset, pools: Pools, spec: WorkerSpec) -> ray.data.Dataset:
    """Manifest rows → rows of the label table, decoded and scored in one process or in two."""
    if pools.placement == "fused":
        return rows.map_batches(
            LabelWorker,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=pools.score_workers),
            num_cpus=pools.score_cpus,
            fn_constructor_args=(spec,),
        )
    pixels = rows.map_batches(
        ReadWorker,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=pools.read_workers),
        num_cpus=pools.read_cpus,
        fn_constructor_args=(spec,),
    )
    on_gpu = pools.score_resources.get("GPU")
    return pixels.map_batches(
        ScoreWorker,
        batch_size=pools.block_rows,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=pools.score_workers),
        num_cpus=pools.score_cpus,
        num_gpus=on_gpu,
        resources={name: amount for name, amount in pools.score_resources.items() if name != "GPU"} or None,
        fn_constructor_args=(spec,),
    )


def worker_spec(plan: Plan, tally: Any) -> WorkerSpec:
    """What each worker is told."""
    job, model = plan.prepared.job, plan.prepared.model
    annotated = {"none": 0, "all": plan.record.rows}.get(str(job.annotate), job.annotate)
    read = ReadOptions(
        preprocess=model.preprocess,
        s3=job.s3,
        max_bytes=job.max_bytes,
        max_pixels=job.max_pixels,
        timeout_s=job.timeout_s,
        attempts=job.fetch_attempts,
        threads=job.fetch_threads,
        rows=plan.record.rows,
        annotate=int(annotated),
    )
    return WorkerSpec(
        job=job,
        read=read,
        device=plan.prepared.device,
        fingerprint=model.fingerprint,
        thresholds=plan.prepared.thresholds,
        run_id=plan.prepared.run_id,
        engine_threads=plan.pools.engine_threads,
        tally=tally,
    )


def cause(error: BaseException) -> str:
    """The innermost reason of a Ray failure, in one line."""
    while True:
        inner = getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return lines[-1] if lines else type(error).__name__
        error = inner

"""The labeling, read from top to bottom: manifest → read → score and select → annotate → sink. `job` is what comes before and after."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import ray
import ray.data
import ray.exceptions

from mlcls_ray import schema
from mlcls_ray.engines.autotune import default_engine
from mlcls_ray.errors import FailureLimitError, RunInterruptedError, resumable_error
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.duplicates import copy_rows
from mlcls_ray.job.engine import model_source
from mlcls_ray.job.node_watch import NodeLostError, NodeWatch
from mlcls_ray.job.plan import Plan, next_attempt, preprocesses, read_options
from mlcls_ray.job.pools import Measured, Pools
from mlcls_ray.job.progress import shown_progress, stopped_by_interrupt
from mlcls_ray.job.sink import LabelSink
from mlcls_ray.job.source import manifest_rows
from mlcls_ray.job.tally import Pace, Tally
from mlcls_ray.job.workers import LabelWorker, ReadWorker, ScoreWorker, WorkerSpec
from mlcls_ray.table.ledger import Fragment, RowSet, failures


def label_waves(plan: Plan) -> tuple[Plan, list[list[Fragment]], dict[str, float]]:
    """Label what is left, mostly in one wave; returns the plan of the last one, the fragments that it wrote (of each model), and
    the seconds of all by stage.

    A long run's first wave ends early when its measured rate asks for other fragments, and any wave that loses a node. Copies whose
    original could not be read, or changed meanwhile, are a wave of their own.
    """
    seconds: dict[str, float] = {}
    while True:
        wave = label_wave(plan)
        seconds = {stage: seconds.get(stage, 0.0) + wave.seconds.get(stage, 0.0) for stage in {*seconds, *wave.seconds}}
        fragments, attempt = wave.fragments, plan.attempt
        if not wave.is_to_be_cut_anew and len(plan.copies):
            store, run_id, size = plan.prepared.store, plan.prepared.run_id, plan.pools.rows_per_fragment
            known = [*attempt.accepted, *fragments[0]]
            fragments[0] += copy_rows(store, run_id, known, attempt.done, attempt.number, size)
        if sum(one.rows for one in [*attempt.accepted, *fragments[0]]) == plan.record.rows:
            return plan, fragments, seconds
        copies = plan.copies if wave.is_to_be_cut_anew else RowSet(plan.record.rows)
        models = [(one.prepared, one.record) for one in plan.models]
        plan = next_attempt(models, living_nodes(), copies, wave.measured)


class Wave(NamedTuple):
    """What one wave wrote, and what it measured where it was long enough."""

    fragments: list[list[Fragment]]
    """Of each model."""
    measured: Measured | None = None
    is_to_be_cut_anew: bool = False
    """It ended early: the measured rate asks for fragments of another size, or a node was lost."""
    seconds: Mapping[str, float] = MappingProxyType({})
    """What its workers spent, by stage."""


def label_wave(plan: Plan) -> Wave:
    """Label the rows that are neither in a fragment nor copies.

    Raises:
        RunError: the run stopped before its end; what is written is kept.
    """
    job, run_id, rows = plan.prepared.job, plan.prepared.run_id, plan.rows_left
    nothing: list[list[Fragment]] = [[] for _ in plan.models]
    if rows == 0:
        return Wave(nothing)
    stores = [one.prepared.store for one in plan.models]
    sink = LabelSink(stores, run_id, plan.attempt.number, plan.pools.rows_per_fragment)
    limit = job.failure_limit(plan.record.rows)
    choice = plan.record.choice
    labels = {"run_id": run_id, "engine": f"{choice.engine}-{choice.precision}" if choice else "paddle-fp32"}
    tally = Tally.remote(limit, failures(plan.attempt.accepted), pace(plan), labels)  # type: ignore[attr-defined]
    source = manifest_rows(plan.prepared.store, run_id, plan.skipped, plan.pools.block_rows)
    watch = NodeWatch()
    cut_off = Wave(nothing, plan.measured, is_to_be_cut_anew=True)  # what it wrote is read from the store
    try:
        with (
            shown_progress(tally, plan.prepared.store, run_id, plan.record.rows, plan.record.rows - rows),
            stopped_by_interrupt(tally),
            watch.ending_wave(tally),
        ):
            label_rows(source, plan.pools, worker_spec(plan, tally)).write_datasink(sink)
        asked = (tally.stop_reason, tally.measured_rate, tally.stage_seconds)
        reason, rate, seconds = ray.get([one.remote() for one in asked])
    except KeyboardInterrupt:
        raise resumable_error(run_id, "interrupted", RunInterruptedError) from None
    except NodeLostError:
        return cut_off
    except ray.exceptions.RayError as error:
        if watch.lost():
            return cut_off
        raise resumable_error(run_id, f"stopped: {cause(error)}") from error
    done = sum(fragment.rows for fragment in sink.fragments[0])
    # The tally starts with no reason where its own node was the one that was lost.
    is_unfinished = done < rows and (reason == "resize" or (reason in ("nodes", "") and watch.lost() > 0))
    measured = plan.measured if rate is None else measured_by(rate, seconds, done)
    wave = Wave(sink.fragments, measured, is_unfinished, seconds)
    if done == rows or wave.is_to_be_cut_anew:
        return wave
    fragments = [*plan.attempt.accepted, *wave.fragments[0]]
    failed = failures(fragments)
    if reason == "failures" and limit is not None and failed > limit:
        raise FailureLimitError(
            f"run '{run_id}' stopped: {failed:,} of {sum(one.rows for one in fragments):,} inputs failed, "
            f"max_failures is {job.max_failures}. What is written is kept; with a higher limit the same command goes on"
        )
    reached = f"stopped after {plan.record.rows - rows + done:,} of {plan.record.rows:,} rows"
    raise resumable_error(run_id, reached, RunInterruptedError)


def pace(plan: Plan) -> Pace | None:
    """What the first wave is watched for; None where the job says how large fragments are, or the rate is known."""
    if plan.prepared.job.rows_per_fragment or plan.measured is not None:
        return None
    return Pace(
        plan.pools.score_workers, plan.rows_left, plan.pools.rows_per_fragment, plan.prepared.job.fragment_seconds
    )


def measured_by(rate: float, seconds: Mapping[str, float], rows: int) -> Measured:
    """A wave's rate, and its stages' seconds an image."""
    return Measured(rate, *(seconds.get(stage, 0.0) / max(rows, 1) for stage in ("decode", "score")))


def label_rows(rows: ray.data.Dataset, pools: Pools, spec: WorkerSpec) -> ray.data.Dataset:
    """Manifest rows → rows of the label table, decoded and scored in one process or in two."""
    on_gpu = pools.score_resources.get("GPU")
    on_others = {name: amount for name, amount in pools.score_resources.items() if name != "GPU"} or None
    if pools.placement == "fused":
        return rows.map_batches(
            LabelWorker,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=pools.score_workers),
            num_cpus=pools.score_cpus,
            num_gpus=on_gpu,
            resources=on_others,
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
    return pixels.map_batches(
        ScoreWorker,
        batch_size=pools.block_rows,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=pools.score_workers),
        num_cpus=pools.score_cpus,
        num_gpus=on_gpu,
        resources=on_others,
        fn_constructor_args=(spec,),
    )


def worker_spec(plan: Plan, tally: Any) -> WorkerSpec:
    """What each worker is told."""
    others = [one.prepared for one in plan.others]
    geometries = [one.geometry for one in preprocesses(plan.prepared, others)]
    read = read_options(plan.prepared, plan.record.rows, others)
    specs = [
        WorkerSpec(
            job=one.prepared.job,
            read=read,
            device=one.prepared.device,
            model_name=one.prepared.model.name,
            model=model_source(one.prepared.job, one.prepared.model, len(one.nodes)),
            choice=one.record.choice or default_engine(one.prepared.job.engine, one.prepared.job.precision, UNCHOSEN),
            thresholds=one.prepared.thresholds,
            run_id=one.prepared.run_id,
            engine_threads=one.pools.engine_threads,
            tally=tally,
            pixels=schema.of_model(schema.PIXELS, geometries.index(one.prepared.model.preprocess.geometry)),
        )
        for one in plan.models
    ]
    return specs[0]._replace(others=tuple(specs[1:]))


UNCHOSEN = "a run of before there was a choice"


def cause(error: BaseException) -> str:
    """The innermost reason of a Ray failure, in one line; Ray puts the worker's traceback and advice of its own around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if REASON.match(line)]
    return (reasons or lines or [type(error).__name__])[-1]


REASON = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")
"""How Python's tracebacks begin their last line."""

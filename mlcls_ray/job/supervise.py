"""Supervise the labeling until every row is done: progress, Ctrl-C, the failure limit, lost nodes, the next attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
import ray.exceptions

from mlcls_ray.errors import FailureLimitError, RunInterruptedError, UsageError, ray_cause, resumable_error
from mlcls_ray.job.capacity import wait_for_nodes
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.duplicates import copy_rows
from mlcls_ray.job.monitor import RunMonitor
from mlcls_ray.job.node_watch import NodeLostError, NodeWatch
from mlcls_ray.job.pipeline import label_rows
from mlcls_ray.job.plan import Run, next_attempt
from mlcls_ray.job.progress import show_progress, stop_on_interrupt
from mlcls_ray.job.sink import Fragments
from mlcls_ray.job.workers import Worker
from mlcls_ray.stages.spec import Stage
from mlcls_ray.table.ledger import RowSet, count_statuses, failures


class Labeled(NamedTuple):
    """The last attempt at a run, with every row labeled."""

    run: Run
    fragments: Fragments
    """Fragments that this attempt wrote."""
    seconds: Counter[str]
    """Seconds that the workers of this driver spent, by activity. Attempts that were cut off are not counted."""


def label_until_done(run: Run, stages: Sequence[type[Stage]] | None = None, worker: type[Worker] = Worker) -> Labeled:
    """Label what is left of a run, in as many attempts as it takes; mostly one. `stages`, `worker`: as `label_rows`.

    An attempt that loses a node ends early, and the next one uses the nodes that are left. Copies whose original could not be read, or
    changed meanwhile, are labeled by an attempt of their own.

    Raises:
        RunError: the run stopped before its end. What is written is kept.
    """
    seconds: Counter[str] = Counter()
    while True:
        outcome = label_attempt(run, stages, worker)
        seconds.update(outcome.seconds)
        if not outcome.lost_nodes and len(run.copies):
            add_copies(run, outcome.fragments)
        first = run.models[0]
        if sum(fragment.rows for fragment in (*first.accepted, *outcome.fragments[first.name])) == run.rows:
            return Labeled(run, outcome.fragments, seconds)
        no_copies = RowSet(run.rows)
        try:
            wait_for_nodes(run.device, run.job.workers, run.job.wait_s)
            run = next_attempt(run, living_nodes(), run.copies if outcome.lost_nodes else no_copies)
        except UsageError as error:  # the last node that can run the job is lost
            raise resumable_error(run.run_id, f"stopped: {error}") from error


class Outcome(NamedTuple):
    """The end of one attempt."""

    fragments: Fragments
    seconds: dict[str, float]
    lost_nodes: bool = False
    """True if it ended early because a node was lost. The next attempt reads from the store what it wrote."""


def label_attempt(run: Run, stages: Sequence[type[Stage]] | None, worker: type[Worker]) -> Outcome:
    """Label the rows that are neither in a fragment nor copies.

    Raises:
        RunError: the run stopped before its end. What is written is kept.
    """
    nothing: Fragments = {model.name: [] for model in run.models}
    if run.rows_left == 0:
        return Outcome(nothing, {})
    monitor = _start_monitor(run)
    watch = NodeWatch()
    try:
        with (
            show_progress(monitor, run.stores.values(), run.run_id, run.rows, run.rows - run.rows_left) as finish,
            stop_on_interrupt(monitor),
            watch.ending_attempt(monitor),
        ):
            fragments = label_rows(run, monitor, stages, worker)
            finish(count_statuses(fragments[run.models[0].name]))
        reason, seconds = ray.get([monitor.stop_reason.remote(), monitor.stage_seconds.remote()])
    except KeyboardInterrupt:
        raise resumable_error(run.run_id, "interrupted", RunInterruptedError) from None
    except NodeLostError:
        return Outcome(nothing, {}, lost_nodes=True)
    except ray.exceptions.RayError as error:
        if watch.lost():
            return Outcome(nothing, {}, lost_nodes=True)
        raise resumable_error(run.run_id, f"stopped: {ray_cause(error)}") from error
    done = sum(fragment.rows for fragment in fragments[run.models[0].name])
    if done == run.rows_left:
        return Outcome(fragments, seconds)
    # A monitor whose own node was lost starts again, with no reason.
    if reason in ("nodes", "") and watch.lost():
        return Outcome(fragments, seconds, lost_nodes=True)
    raise _stopped_early(run, reason, fragments, done)


def add_copies(run: Run, fragments: Fragments) -> None:
    """Give the copies the rows of their originals, in each model's output."""
    for model in run.models:
        written = fragments[model.name]
        labeled = [*model.accepted, *written]
        written += copy_rows(model.store, run.run_id, labeled, run.done, run.attempt, run.pools.rows_per_fragment)


def _start_monitor(run: Run) -> Any:
    engine = run.models[0].record.engine
    labels = {"run_id": run.run_id, "engine": f"{engine.engine}-{engine.precision}"}
    limit = run.job.failure_limit(run.rows)
    return RunMonitor.remote(limit, failures(run.models[0].accepted), labels)  # type: ignore[attr-defined]


def _stopped_early(run: Run, reason: str, fragments: Fragments, done: int) -> Exception:
    limit = run.job.failure_limit(run.rows)
    written = [*run.models[0].accepted, *fragments[run.models[0].name]]
    if reason == "failures" and limit is not None and (failed := failures(written)) > limit:
        return FailureLimitError(
            f"run '{run.run_id}' stopped: {failed:,} of {sum(fragment.rows for fragment in written):,} inputs failed, "
            f"max_failures is {run.job.max_failures}. What is written is kept; the same command with a higher limit resumes it"
        )
    reached = f"stopped after {run.rows - run.rows_left + done:,} of {run.rows:,} rows"
    return resumable_error(run.run_id, reached, RunInterruptedError)

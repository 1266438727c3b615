"""The tally: an actor that the workers report to, and that tells them when to stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

import ray

from mlcls_ray.errors import Status
from mlcls_ray.job.fragment_rows import rows_per_fragment
from mlcls_ray.job.metrics import RunMetrics

WATCH_S = 15.0
WORTH_A_RESTART_S = 180.0

Reason = Literal["", "failures", "interrupt", "resize", "nodes"]


class Pace(NamedTuple):
    """What the first wave was cut for: so many workers, rows to label, rows in a fragment and seconds of work in it.

    `watch_s`: how long it is watched, from its first rows on, before its fragments are judged; `worth_s`: how many seconds of work must be
    left for new workers (some seconds each) to be worth it.
    """

    workers: int
    rows: int
    fragment_rows: int
    fragment_seconds: float
    watch_s: float = WATCH_S
    worth_s: float = WORTH_A_RESTART_S


@ray.remote(num_cpus=0, max_restarts=-1)
class Tally:
    """Counts rows by status as the workers finish them, and says why they are to stop (`""`: they are not).

    The counts are for display, the failure limit and the measured rate only: the ledger says what is true.
    """

    def __init__(
        self,
        failure_limit: int | None,
        failed_before: int,
        pace: Pace | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """`labels`: of the metrics, `run_id` and `engine`; None: no metrics."""
        self.metrics = RunMetrics(labels) if labels else None
        self.statuses: Counter[str] = Counter()
        self.spent: dict[str, float] = {}
        self.failure_limit = failure_limit
        self.failed_before = failed_before
        self.pace = pace
        self.first: tuple[float, int] | None = None
        self.rate: float | None = None
        self.reason: Reason = ""

    def add(self, statuses: dict[str, int], read_bytes: int = 0) -> None:
        self.statuses.update(statuses)
        if self.metrics:
            self.metrics.count(statuses, read_bytes)
        if self.failure_limit is not None and self.failed_before + errors(self.statuses) > self.failure_limit:
            self.reason = "failures"
        if self.pace is not None:
            self._watch(self.pace)

    def _watch(self, pace: Pace) -> None:
        """After some seconds, ask for a new cut where fragments are far from the wanted size and much work is left."""
        now, done = time.monotonic(), self.statuses.total()
        if self.first is None:
            self.first = (now, done)
        elif now - self.first[0] > pace.watch_s:
            self.pace = None
            rate = (done - self.first[1]) / (now - self.first[0])
            self.rate = rate / pace.workers
            wanted = rows_per_fragment(self.rate, pace.fragment_seconds)
            is_far = not wanted / 2 <= pace.fragment_rows <= wanted * 2
            if is_far and (pace.rows - done) / max(rate, 1e-9) > pace.worth_s and not self.reason:
                self.reason = "resize"

    def spend(self, seconds: dict[str, float]) -> None:
        for stage, more in seconds.items():
            self.spent[stage] = self.spent.get(stage, 0.0) + more
            if self.metrics:
                self.metrics.spend(stage, more)

    def stage_seconds(self) -> dict[str, float]:
        """Seconds of all workers by stage: fetch (waiting), decode (CPU), score."""
        return self.spent

    def counts(self) -> dict[str, int]:
        return dict(self.statuses)

    def measured_rate(self) -> float | None:
        """Rows per second of one worker; None while it is not known."""
        return self.rate

    def stop(self, reason: Reason) -> None:
        """Asked for by the user, whose word counts most, or because a node was lost."""
        if reason == "interrupt" or not self.reason:
            self.reason = reason

    def stop_reason(self) -> Reason:
        return self.reason


def errors(counts: Counter[str]) -> int:
    """How many rows are not `ok`."""
    return counts.total() - counts[Status.OK.value]

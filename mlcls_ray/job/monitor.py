"""The run monitor: an actor that the workers report to, and that tells them when to stop; and the classes that talk to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import ray
import ray.exceptions

from mlcls_ray.errors import Status
from mlcls_ray.job.metrics import RunMetrics

StopReason = Literal["", "failures", "interrupt", "nodes"]
ASK_INTERVAL_S = 1.0
ASK_TIMEOUT_S = 10.0
SUSPECT_LOSSES, MAX_LOSSES = 2, 4
"""Devices that are lost with the same row in hand, until the row's image is kept from the card's decoder, and until the run ends."""


@ray.remote(num_cpus=0, max_restarts=-1)
class RunMonitor:
    """Counts rows by status as the workers finish them, and says why the workers are to stop ("" while they are not).

    The counts serve display and the failure limit only: the ledger says what is true.
    """

    def __init__(self, failure_limit: int | None, failed_before: int, labels: Mapping[str, str] | None = None) -> None:
        """`failed_before`: failures in fragments of earlier attempts. `labels`: `run_id` and `engine` of the metrics; None: no metrics."""
        self.metrics = RunMetrics(labels) if labels else None
        self.statuses: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.losses: Counter[int] = Counter()
        self.failure_limit = failure_limit
        self.failed_before = failed_before
        self.reason: StopReason = ""

    def add(self, statuses: dict[str, int], read_bytes: int = 0) -> None:
        self.statuses.update(statuses)
        if self.metrics:
            self.metrics.count(statuses, read_bytes)
        if self.failure_limit is not None and self.failed_before + count_failures(self.statuses) > self.failure_limit:
            self.reason = "failures"

    def add_seconds(self, seconds: dict[str, float]) -> None:
        self.seconds.update(seconds)
        if self.metrics:
            for stage, spent in seconds.items():
                self.metrics.add_seconds(stage, spent)

    def stage_seconds(self) -> dict[str, float]:
        """Seconds of all workers by activity: fetch (waiting), decode (CPU), decode_on_card, score."""
        return dict(self.seconds)

    def counts(self) -> dict[str, int]:
        return dict(self.statuses)

    def add_loss(self, rows: list[int]) -> int:
        """Note that a device was lost with these rows in hand; returns how often that happened with the same one."""
        self.losses.update(rows)
        return max((self.losses[row] for row in rows), default=0)

    def suspects(self) -> list[int]:
        """Return the rows whose image may be the reason that devices are lost."""
        return [row for row, count in self.losses.items() if count >= SUSPECT_LOSSES]

    def stop(self, reason: StopReason) -> None:
        """Ask the workers to stop. An interrupt by the user overrides any other reason."""
        if reason == "interrupt" or not self.reason:
            self.reason = reason

    def stop_reason(self) -> StopReason:
        return self.reason


def count_failures(statuses: Counter[str]) -> int:
    """Count the rows that are not `ok`."""
    return statuses.total() - statuses[Status.OK.value]


def ask(method: Any, *arguments: Any, otherwise: Any) -> Any:
    """Call a method of the monitor's handle. A monitor that cannot be asked (its node died, it restarts) is no reason to stop."""
    try:
        return ray.get(method.remote(*arguments), timeout=ASK_TIMEOUT_S)
    except (ray.exceptions.RayError, TimeoutError):
        return otherwise


class StopFlag:
    """A worker's view of whether the run is to end early. Asks the monitor once a second at most."""

    def __init__(self, monitor: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.monitor = monitor
        self.clock = clock
        self.asked_at = clock()
        self.stopped = False

    def is_set(self) -> bool:
        now = self.clock()
        if not self.stopped and now - self.asked_at > ASK_INTERVAL_S:
            self.asked_at = now
            self.stopped = bool(ask(self.monitor.stop_reason, otherwise=""))
        return self.stopped


class StageTimer:
    """Reports to the monitor what a worker's stages have spent since the last report, once a second at most."""

    def __init__(self, monitor: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.monitor = monitor
        self.clock = clock
        self.reported: Counter[str] = Counter()
        self.reported_at = float("-inf")

    def report(self, seconds: Counter[str]) -> None:
        """`seconds`: spent since the worker's start, by activity."""
        if (now := self.clock()) - self.reported_at < ASK_INTERVAL_S:
            return
        self.reported_at = now
        self.monitor.add_seconds.remote({stage: spent - self.reported[stage] for stage, spent in seconds.items()})
        self.reported = Counter(seconds)

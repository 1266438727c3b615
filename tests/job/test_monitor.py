"""The run monitor: counts, the failure limit, the user's stop; and what workers ask and report, by a fake clock."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import ray

from mlcls_ray.job.monitor import RunMonitor, StageTimer, StopFlag, ask

pytestmark = pytest.mark.usefixtures("loopback_ray")


def reason(monitor: Any) -> str:
    return str(ray.get(monitor.stop_reason.remote()))


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_failures_and_the_user() -> None:
    monitor = RunMonitor.remote(3, 1)
    monitor.add.remote({"ok": 5, "corrupt": 2})
    assert reason(monitor) == ""
    monitor.add.remote({"missing": 1})
    assert reason(monitor) == "failures"
    monitor.stop.remote("interrupt")
    assert reason(monitor) == "interrupt"
    monitor.stop.remote("nodes")
    assert reason(monitor) == "interrupt", "the user's word counts most"
    assert ray.get(monitor.counts.remote()) == {"ok": 5, "corrupt": 2, "missing": 1}


def test_a_worker_asks_once_a_second_at_most_and_remembers_the_answer() -> None:
    monitor, clock = RunMonitor.remote(None, 0), Clock()
    flag = StopFlag(monitor, clock)
    ray.get(monitor.stop.remote("interrupt"))
    assert not flag.is_set(), "it has not asked yet"
    clock.now += 0.9
    assert not flag.is_set()
    clock.now += 0.2
    assert flag.is_set()
    ray.kill(monitor)
    clock.now += 10
    assert flag.is_set()


def test_a_dead_monitor_stops_nobody() -> None:
    monitor, clock = RunMonitor.options(max_restarts=0).remote(None, 0), Clock()
    ray.get(monitor.stop.remote("interrupt"))
    ray.kill(monitor)
    while ask(monitor.stop_reason, otherwise="dead") != "dead":  # it may answer for a moment
        pass
    flag = StopFlag(monitor, clock)
    clock.now += 2
    assert not flag.is_set()


def test_seconds_are_reported_as_they_grow_once_a_second_at_most() -> None:
    monitor, clock = RunMonitor.remote(None, 0), Clock()
    timer = StageTimer(monitor, clock)
    timer.report(Counter(decode=1.0))
    timer.report(Counter(decode=9.0, score=1.0))  # too soon
    assert ray.get(monitor.stage_seconds.remote()) == {"decode": 1.0}
    clock.now += 1.5
    timer.report(Counter(decode=9.0, score=2.5))
    assert ray.get(monitor.stage_seconds.remote()) == {"decode": 9.0, "score": 2.5}

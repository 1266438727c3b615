"""A lost node ends an attempt: by asking the workers first, then by cutting it off. A node that nobody knows stands for a lost one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray

from mlcls_ray.job.monitor import RunMonitor
from mlcls_ray.job.node_watch import NodeLostError, NodeWatch


def watch_of_lost_node() -> NodeWatch:
    watch = NodeWatch()
    watch.nodes |= {"a node that was here"}
    return watch


def stop_reason(monitor: object) -> str:
    return str(ray.get(monitor.stop_reason.remote()))  # type: ignore[attr-defined]


def wait_as_ray_data_does() -> None:
    while True:
        time.sleep(0.01)


def test_all_nodes_live(loopback_ray: None) -> None:
    monitor = RunMonitor.remote(None, 0)  # type: ignore[attr-defined]
    watch = NodeWatch()
    with watch.ending_attempt(monitor, grace_s=0.0):
        time.sleep(0.2)
    assert watch.lost() == 0
    assert stop_reason(monitor) == ""


def test_an_attempt_that_goes_on_is_cut_off(loopback_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = RunMonitor.remote(None, 0)  # type: ignore[attr-defined]
    began = time.monotonic()
    with pytest.raises(NodeLostError), watch_of_lost_node().ending_attempt(monitor, grace_s=2.0):
        wait_as_ray_data_does()
    assert time.monotonic() - began < 30
    assert stop_reason(monitor) == "nodes"
    assert "1 of 2 nodes lost" in capsys.readouterr().err


def test_an_attempt_that_ends_when_asked_is_not_cut_off(loopback_ray: None) -> None:
    monitor = RunMonitor.remote(None, 0)  # type: ignore[attr-defined]
    with watch_of_lost_node().ending_attempt(monitor):
        while stop_reason(monitor) != "nodes":
            time.sleep(0.05)


def test_outside_the_main_thread_it_only_asks(loopback_ray: None) -> None:
    monitor = RunMonitor.remote(None, 0)  # type: ignore[attr-defined]

    def attempt() -> str:
        with watch_of_lost_node().ending_attempt(monitor, grace_s=0.0):
            time.sleep(3)
        return stop_reason(monitor)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(attempt).result() == "nodes"


def test_the_user_has_the_last_word(loopback_ray: None) -> None:
    monitor = RunMonitor.remote(None, 0)  # type: ignore[attr-defined]
    for reason in ("nodes", "interrupt", "nodes"):
        ray.get(monitor.stop.remote(reason))
    assert stop_reason(monitor) == "interrupt"

"""Room for a job on its cluster: an autoscaler is asked for machines, and other jobs are waited for, with a word about it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.util import placement_group, remove_placement_group

from mlcls_ray.devices import Device
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import Node, free_nodes, living_nodes
from mlcls_ray.job.pools import check_resources
from mlcls_ray.job.ray_private import has_autoscaler

SETTLE_S = 2.0
"""Seconds after which Ray knows what is free."""
LOOK_INTERVAL_S = 2.0
GROW_S = 60.0
"""A job starts with the machines that have come when no other one has come for so long."""


def wait_for_room(device: Device, workers: int | None, wait_s: float, settle_s: float = SETTLE_S) -> list[Node]:
    """Wait until the connected cluster has a free CPU and a free device; return its nodes with what is free on them.

    Args:
        workers: devices (or CPUs) that an autoscaler is asked for. None: one.
        wait_s: how long to wait, at most.
        settle_s: how long what a job held that has just ended may still look taken.

    Raises:
        UsageError: it has none, and nobody will add any, or none was free in time.
    """
    wait_for_nodes(device, workers, wait_s)
    nodes = _settled(lambda free: _cpus(free) >= _cpus(living_nodes()), settle_s)
    if not has_room(device, nodes):
        with asking_for(device, 1) as bundles:
            tell(f"the cluster has no free {device.resource}: waiting for other jobs to end, or for a new machine")
            wait_for_bundles(bundles, f"the cluster had no free {device.resource}", wait_s)
        nodes = _settled(lambda free: has_room(device, free), max(settle_s, SETTLE_S))
        if not has_room(device, nodes):  # another job was quicker
            raise UsageError(
                f"the cluster has no free {device.resource}; start the job again when other jobs have ended"
            )
    total = _cpus(living_nodes())
    if _cpus(nodes) < total:
        tell(f"other jobs hold {total - _cpus(nodes)} of the cluster's {total} CPUs; this one uses what is free")
    return nodes


def wait_for_nodes(device: Device, workers: int | None, wait_s: float) -> None:
    """Wait until the connected cluster has nodes that can run a job, free or not, where an autoscaler can add them.

    Raises:
        UsageError: it has none, and no autoscaler, or none came in time.
    """
    try:
        check_resources(device, living_nodes())
    except UsageError:
        if wait_s == 0 or not has_autoscaler():
            raise
    else:
        return
    with asking_for(device, workers or 1) as bundles:
        tell(f"the cluster has no {device.resource} yet: waiting for its autoscaler to start {workers or 1}")
        wait_for_bundles(bundles, f"the autoscaler has started no machine with {device.resource}", wait_s)


def has_room(device: Device, nodes: Sequence[Node]) -> bool:
    """Tell whether nodes have a CPU for Ray Data's tasks, and a device."""
    return any(node.cpus > 0 for node in nodes) and any(node.resources.get(device.resource, 0) >= 1 for node in nodes)


@contextlib.contextmanager
def asking_for(device: Device, count: int) -> Iterator[list[ray.ObjectRef]]:
    """Ask Ray for devices (or CPUs), each with a CPU, while the body runs; yields one reference for each, which is ready when it is there.

    A placement group is a demand that an autoscaler sees. Unlike `request_resources` it ends with this driver, however that ends.
    """
    bundle = {"CPU": 1.0} if device.is_cpu else {"CPU": 1.0, device.resource: 1.0}
    groups = [placement_group([bundle]) for _ in range(count)]
    try:
        yield [group.ready() for group in groups]
    finally:
        for group in groups:
            remove_placement_group(group)


def wait_for_bundles(bundles: list[Any], failure: str, wait_s: float) -> None:
    """Wait until all bundles are there, or until one is and no other one has come for a while.

    Raises:
        UsageError: none came in time.
    """
    started = changed = time.monotonic()
    ready: list[Any] = []
    while len(ready) < len(bundles) and time.monotonic() - started < wait_s:
        before = len(ready)
        ready, _ = ray.wait(bundles, num_returns=len(bundles), timeout=LOOK_INTERVAL_S)
        if len(ready) > before:
            changed = time.monotonic()
        elif ready and time.monotonic() - changed > GROW_S:
            break
    if not ready:
        raise UsageError(
            f"{failure} within {wait_s:.0f} s: `ray status` says what the cluster has; --wait-for-resources waits longer"
        )
    tell(f"{len(ready)} of {len(bundles)} came after {time.monotonic() - started:.0f} s")


def tell(message: str) -> None:
    """Print a line for the person who waits."""
    print(message, file=sys.stderr, flush=True)


def _settled(is_settled: Callable[[list[Node]], bool], wait_s: float) -> list[Node]:
    """Return the free nodes as soon as they satisfy a condition, or as they are after a while."""
    deadline = time.monotonic() + wait_s
    while not is_settled(nodes := free_nodes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return nodes


def _cpus(nodes: Sequence[Node]) -> int:
    return sum(node.cpus for node in nodes)

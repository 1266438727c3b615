"""The device of a worker. Ray assigns those that it manages; of the others each worker claims one on its machine."""

from __future__ import annotations

from typing import NamedTuple

import ray
from filelock import FileLock, Timeout
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from mlcls_ray.devices import Device
from mlcls_ray.models.cache import home

WAIT_S = 30.0
"""Seconds that a worker waits for a device whose last worker is just ending."""


class ClaimedDevice(NamedTuple):
    """One worker's device. It is that worker's as long as the lock is kept."""

    device: Device
    lock: FileLock | None = None


def claim_device(device: Device, workers_per_device: int) -> ClaimedDevice:
    """Claim a device for this Ray worker. `device` names the job's.

    Raises:
        Timeout: every device is taken, because Ray was told of more devices than there are.
    """
    if device.is_cpu:
        return ClaimedDevice(device)
    if device.ray_managed:
        return ClaimedDevice(device.in_worker())
    node_id = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == node_id]
    indices = device.indices or tuple(range(int(node["Resources"][device.resource])))
    return _claim(device.kind, indices, workers_per_device, node_id)


@retry(retry=retry_if_exception_type(Timeout), stop=stop_after_delay(WAIT_S), wait=wait_fixed(0.5), reraise=True)
def _claim(kind: str, indices: tuple[int, ...], workers_per_device: int, node_id: str) -> ClaimedDevice:
    """Take a lock file for one place on one device. The kernel gives it back when its process ends, however it ends."""
    folder = home() / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(workers_per_device):
        for index in indices:
            lock = FileLock(folder / f"{node_id}-{kind}-{index}-{place}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            return ClaimedDevice(Device(kind, (index,)), lock)
    raise Timeout(str(folder / f"{node_id}-{kind}"))

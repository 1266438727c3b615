"""Which card a scoring worker takes. Ray gives out those that it knows; of the others each worker claims one on its machine."""

from __future__ import annotations

from typing import NamedTuple

import ray
from filelock import FileLock, Timeout
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.models.cache import home

WAIT_S = 30.0
"""For a card whose last worker is just ending."""


class Card(NamedTuple):
    """One worker's device; it is that worker's as long as the lock is kept."""

    device: Device
    lock: FileLock | None = None


def claim_device(device: Device, workers_per_device: int) -> Card:
    """The device of this Ray worker; `device` names the job's.

    Raises:
        Timeout: as many workers as there are cards have theirs; Ray was told of more cards than there are.
    """
    if device.kind == "cpu":
        return Card(device)
    if DEVICE_KINDS[device.kind].ray_managed:
        return Card(Device(device.kind, (0,)))  # all that Ray shows this process
    node = ray.get_runtime_context().get_node_id()
    (here,) = [one for one in ray.nodes() if one["NodeID"] == node]
    cards = device.indices or tuple(range(int(here["Resources"][device.resource])))
    return _claim(device.kind, cards, workers_per_device, node)


@retry(retry=retry_if_exception_type(Timeout), stop=stop_after_delay(WAIT_S), wait=wait_fixed(0.5), reraise=True)
def _claim(kind: str, cards: tuple[int, ...], workers_per_device: int, node: str) -> Card:
    """A lock file for each place on each card; the kernel gives it back when its process ends, however it ends."""
    folder = home() / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(workers_per_device):
        for card in cards:
            lock = FileLock(folder / f"{node}-{kind}-{card}-{place}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            return Card(Device(kind, (card,)), lock)
    raise Timeout(str(folder / f"{node}-{kind}"))

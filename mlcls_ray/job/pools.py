"""How many workers of each kind, from what the cluster has.

Ray Data's own tasks (listing the manifest, cutting it into blocks, writing fragments) ask for one whole CPU each. A pool that
takes every CPU leaves them waiting for ever, so on each node one CPU's worth stays free: workers ask for a little less
than the CPU that they use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.engines.autotune import fixed_batch
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.fragment_rows import rows_per_fragment

MAX_BLOCK_ROWS = 512
MAX_BLOCK_BYTES = 64 << 20
"""Of pixels: what one block of the split placement puts into the object store."""
BLOCKS_PER_WORKER = 8
"""At least so many blocks a worker, so that the slowest one does not hold up the end of a small job."""


READ_AHEAD = 1.25
"""How much faster than the scoring workers the reading ones are to be, where both are measured: images differ."""


class Measured(NamedTuple):
    """What an earlier wave measured: images per second of one worker, and CPU seconds of decoding and seconds of scoring an image."""

    rate: float
    decode_s: float = 0.0
    score_s: float = 0.0


class Pools(NamedTuple):
    """`cpus`: what each worker asks Ray for; `resources`: the accelerator it asks for, by Ray's name."""

    placement: Literal["split", "fused"]
    score_workers: int
    score_cpus: float
    score_resources: dict[str, float]
    engine_threads: int
    read_workers: int
    read_cpus: float
    block_rows: int
    rows_per_fragment: int


def size_pools(
    job: LabelJob,
    device: Device,
    nodes: Sequence[Node],
    rows: int,
    pixel_bytes: int,
    measured: Measured | None = None,
    batch_size: int | None = None,
) -> Pools:
    """Pools for `rows` images of `pixel_bytes` each, in batches of `batch_size` (None: not decided yet).

    Raises:
        UsageError: see `check_resources`.
    """
    check_resources(device, nodes)
    batch_size = batch_size or fixed_batch(job.batch_size, device)
    cpus = [node.cpus for node in nodes if node.cpus > 0]
    places = [devices_of(node, device) * job.workers_per_device for node in nodes]
    on_cpu = device.kind == "cpu"
    placement = ("fused" if on_cpu else "split") if job.placement == "auto" else job.placement
    # A node with a single CPU beside larger ones is for tasks; alone it lends itself to workers for free.
    hosts = [count for count in cpus if count > 1] or cpus
    share = min((count - 1) / count for count in hosts)
    total = sum(hosts)
    useful = max(1, -(-rows // batch_size))
    if on_cpu:
        most = total if placement == "fused" else _scoring_share(total, measured)
        score_cpus = share
    else:
        most = sum(places)
        # Fused workers decode too: what their node has is shared among them, less the one CPU for Ray Data's tasks.
        shares = [(node.cpus - 1) / count for node, count in zip(nodes, places, strict=True) if count]
        score_cpus = 0.0 if placement == "split" else max(0.0, min(shares))
    score_workers = min(job.workers or most, most, useful)
    read_workers = 0
    if placement == "split":
        read_workers = min(max(1, total - score_workers if on_cpu else total - len(hosts)), useful)
        if not on_cpu and measured and measured.score_s:
            needed = READ_AHEAD * score_workers * measured.decode_s / measured.score_s
            read_workers = min(read_workers, max(1, math.ceil(needed)))
    workers = score_workers if placement == "fused" else read_workers
    fragment_rows = job.rows_per_fragment or rows_per_fragment(measured and measured.rate, job.fragment_seconds)
    block_rows = _block_rows(
        min(rows, fragment_rows * workers * BLOCKS_PER_WORKER), workers, batch_size, placement, pixel_bytes
    )
    return Pools(
        placement=placement,
        score_workers=score_workers,
        score_cpus=score_cpus,
        score_resources={} if on_cpu else {device.resource: 1.0 / job.workers_per_device},
        engine_threads=max(1, (total if placement == "fused" else max(1, total // 2)) // score_workers),
        read_workers=read_workers,
        read_cpus=share,
        block_rows=job.block_rows or block_rows,
        rows_per_fragment=fragment_rows,
    )


def _scoring_share(cpus: int, measured: Measured | None) -> int:
    """How many of so many CPUs score, where others decode: half, or as long as the one takes beside the other."""
    spent = measured.decode_s + measured.score_s if measured else 0.0
    share = measured.score_s / spent if measured and spent else 0.5
    return min(max(1, round(cpus * share)), max(1, cpus - 1))


def devices_of(node: Node, device: Device) -> int:
    """How many of a node's cards the job uses: those it names, else all."""
    there = int(node.resources.get(device.resource, 0))
    return min(there, len(device.indices)) if device.indices else there


def check_resources(device: Device, nodes: Sequence[Node]) -> None:
    """Whether the cluster can run a job on the device at all.

    Raises:
        UsageError: it has no CPU, or not the accelerator that was asked for.
    """
    if not any(node.cpus > 0 for node in nodes):
        raise UsageError("the Ray cluster has no CPU: start its nodes with --num-cpus")
    if not any(node.resources.get(device.resource, 0) >= 1 for node in nodes):
        known = dict.fromkeys(kind.resource for kind in DEVICE_KINDS.values())
        has = ", ".join(name for name in known if any(node.resources.get(name) for node in nodes))
        told = (
            ""
            if DEVICE_KINDS[device.kind].ray_managed
            else f""", or start its nodes with --resources '{{"{device.resource}": 8}}'"""
        )
        raise UsageError(
            f"device '{device.kind}': the Ray cluster has no {device.resource} (it has: {has}); use --device cpu" + told
        )


def _block_rows(rows: int, workers: int, batch_size: int, placement: str, pixel_bytes: int) -> int:
    """A multiple of the batch size where possible, so that no batch is a short one."""
    wanted = min(-(-rows // (workers * BLOCKS_PER_WORKER)), MAX_BLOCK_ROWS)
    if placement == "split":
        wanted = min(wanted, max(1, MAX_BLOCK_BYTES // pixel_bytes))
    return max(1, -(-wanted // batch_size) * batch_size)

"""Size the pools of workers by what the cluster has.

Ray Data's own tasks (reading the manifest, cutting it into blocks, writing fragments) ask for one whole CPU each. A pool that takes
every CPU would leave them waiting for ever, so one CPU's worth stays free on each node: workers ask for a little less than the CPU that
they use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import Node

Placement = Literal["fused", "split", "card"]

MAX_BLOCK_ROWS = 512
MAX_BLOCK_BYTES = 64 << 20
"""Bytes in one block that goes through the object store: pixels of the split placement, encoded images of the card placement."""
ENCODED_BYTES = 100_000
"""An encoded photograph of a corpus. Where they are larger, a task gives several blocks, so that the object store holds as much."""
BLOCKS_PER_WORKER = 8
"""Blocks for each worker, at least, so that the slowest worker does not hold up the end of a small job."""
DECODE_S = 0.004
"""CPU seconds to decode and resize a photograph; measured on 640x480 JPEGs to 448x448."""
READ_AHEAD = 1.25
"""The decoding pool is made so much faster than the scoring pool, because decode times vary."""
DEFAULT_FRAGMENT_ROWS, MAX_FRAGMENT_ROWS = 500, 100_000
"""Rows in a fragment where the rate of scoring is not known, and at most."""
CARD_IMAGES_PER_S = 1000.0
"""The rate of a worker whose card decodes too, where it is not known: slower than most, so that no fragment takes many minutes."""
CALLS_ON_CARD = 3
"""Batches in a worker whose card decodes: while one is scored, the next one is decoded, and labels of the last one are selected."""


class Pool(NamedTuple):
    """Workers of one kind, and what each of them asks Ray for."""

    workers: int
    cpus: float
    device: Device | None = None
    """The accelerator that it asks for; None for none."""
    share: float = 1.0
    """The share of that accelerator."""
    batch_rows: int | None = None
    """Rows in a batch; None: blocks come whole, as Arrow tables."""
    calls: int = 1
    """Batches that one worker has in hand at once, each in a thread of its own."""


class Pools(NamedTuple):
    """The pools of a job, in the order of the stages that they run, and the sizes that follow from them."""

    placement: Placement
    pools: tuple[Pool, ...]
    engine_threads: int
    """CPU threads of one engine."""
    block_rows: int
    """Manifest rows in one task."""
    rows_per_fragment: int

    @property
    def scoring(self) -> Pool:
        return self.pools[-1]

    @property
    def reading(self) -> Pool:
        return self.pools[0]


def size_pools(
    job: LabelJob,
    device: Device,
    nodes: Sequence[Node],
    rows: int,
    pixel_bytes: int,
    batch_size: int,
    images_per_s: float | None = None,
) -> Pools:
    """Size the pools for `rows` images of `pixel_bytes` each.

    Args:
        batch_size: images that one model scores at once.
        images_per_s: what one engine scores alone, all models together; None: not known.

    Raises:
        UsageError: see `check_resources`.
    """
    check_resources(device, nodes)
    placement = _placement(job, device)
    # A node with one CPU is left to Ray's tasks if there are larger ones. If all are that small, workers ask Ray for no CPU.
    cpus = [node.cpus for node in nodes if node.cpus > 0]
    hosts = [count for count in cpus if count > 1] or cpus
    total = sum(hosts)
    cpu_share = min((count - 1) / count for count in hosts)
    useful = max(1, -(-rows // batch_size))
    score_s = 1 / images_per_s if images_per_s else None

    if device.is_cpu:
        most = total if placement == "fused" else _scoring_share(total, score_s)
        score_cpus = cpu_share
    else:
        places = [devices_of(node, device) * job.workers_per_device for node in nodes]
        most = sum(places)
        # Fused workers decode too: they share what their node has, less the one CPU for Ray Data's tasks.
        shares = [(node.cpus - 1) / count for node, count in zip(nodes, places, strict=True) if count]
        score_cpus = max(0.0, min(shares)) if placement == "fused" else 0.0
    score_workers = min(job.workers or most, most, useful)

    fragment_rows = job.rows_per_fragment or _fragment_rows(job, device, placement, score_s)
    pools: tuple[Pool, ...]
    if placement == "fused":
        block_rows = _block_rows(rows, fragment_rows, score_workers, batch_size)
        pools = (_scoring_pool(job, device, score_workers, score_cpus),)
    elif placement == "card":
        # Each scoring worker keeps a CPU busy: it launches kernels, and selects labels. All others fetch: how long that takes is not known.
        read_workers = max(1, min(total - len(hosts) - score_workers, useful))
        block_rows = _block_rows(rows, fragment_rows, read_workers, batch_size, MAX_BLOCK_BYTES // ENCODED_BYTES)
        scoring = _scoring_pool(job, device, score_workers, score_cpus)
        pools = (Pool(read_workers, cpu_share), scoring._replace(batch_rows=batch_size, calls=CALLS_ON_CARD))
    else:
        spare = total - score_workers if device.is_cpu else total - len(hosts)
        needed = (
            spare if device.is_cpu or score_s is None else math.ceil(READ_AHEAD * score_workers * DECODE_S / score_s)
        )
        read_workers = max(1, min(spare, needed, useful))
        block_rows = _block_rows(rows, fragment_rows, read_workers, batch_size, max(1, MAX_BLOCK_BYTES // pixel_bytes))
        scoring = _scoring_pool(job, device, score_workers, score_cpus)
        pools = (Pool(read_workers, cpu_share), scoring._replace(batch_rows=job.block_rows or block_rows))
    return Pools(
        placement=placement,
        pools=pools,
        engine_threads=max(1, (total if placement == "fused" else max(1, total // 2)) // score_workers),
        block_rows=job.block_rows or block_rows,
        rows_per_fragment=fragment_rows,
    )


def _placement(job: LabelJob, device: Device) -> Placement:
    if job.placement == "auto":
        return "fused" if device.is_cpu else "split"
    return job.placement


def _scoring_pool(job: LabelJob, device: Device, workers: int, cpus: float) -> Pool:
    return Pool(workers, cpus) if device.is_cpu else Pool(workers, cpus, device, 1.0 / job.workers_per_device)


def _scoring_share(cpus: int, score_s: float | None) -> int:
    """Choose how many CPUs score where others decode: half, or as long as scoring takes beside decoding."""
    share = score_s / (score_s + DECODE_S) if score_s else 0.5
    return min(max(1, round(cpus * share)), max(1, cpus - 1))


def _fragment_rows(job: LabelJob, device: Device, placement: Placement, score_s: float | None) -> int:
    """Estimate how many rows are `fragment_seconds` of one worker's work. Workers that are fused on CPUs decode with the same CPU."""
    if placement == "card":
        score_s = score_s or 1 / CARD_IMAGES_PER_S
    if score_s is None:
        return DEFAULT_FRAGMENT_ROWS
    row_s = score_s + (DECODE_S if device.is_cpu and placement == "fused" else 0.0)
    return min(max(round(job.fragment_seconds / row_s), 1), MAX_FRAGMENT_ROWS)


def _block_rows(rows: int, fragment_rows: int, workers: int, batch_size: int, most: int = MAX_BLOCK_ROWS) -> int:
    """Cut the rows into blocks: a multiple of the batch size where possible, so that no batch is a short one."""
    cut = min(rows, fragment_rows * workers * BLOCKS_PER_WORKER)
    block_rows = min(-(-cut // (workers * BLOCKS_PER_WORKER)), MAX_BLOCK_ROWS, most)
    return max(1, -(-block_rows // batch_size) * batch_size)


def devices_of(node: Node, device: Device) -> int:
    """Count the devices of a node that the job uses: those that it names, else all."""
    count = int(node.resources.get(device.resource, 0))
    return min(count, len(device.indices)) if device.indices else count


def check_resources(device: Device, nodes: Sequence[Node]) -> None:
    """Check that the cluster can run a job on the device at all.

    Raises:
        UsageError: it has no CPU, or not the accelerator that was asked for.
    """
    if not any(node.cpus > 0 for node in nodes):
        raise UsageError("the Ray cluster has no CPU: start its nodes with --num-cpus")
    if not any(node.resources.get(device.resource, 0) >= 1 for node in nodes):
        resources = dict.fromkeys(kind.resource for kind in DEVICE_KINDS.values())
        present = ", ".join(name for name in resources if any(node.resources.get(name) for node in nodes))
        hint = f""", or start its nodes with --resources '{{"{device.resource}": 8}}'"""
        if device.resource == "GPU":
            hint = ", or start its nodes with --num-gpus"
        raise UsageError(
            f"device '{device.kind}': the Ray cluster has no {device.resource} (it has: {present}); use --device cpu{hint}"
        )

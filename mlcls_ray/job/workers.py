"""The workers: each is a Ray actor that runs a slice of the stages."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import takewhile
from threading import Lock, get_ident
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlcls_ray import schema
from mlcls_ray.engines.failures import is_out_of_memory
from mlcls_ray.errors import DeviceLostError
from mlcls_ray.job.devices import claim_device
from mlcls_ray.job.monitor import MAX_LOSSES, StageTimer, StopFlag, ask, count_failures
from mlcls_ray.job.row_log import RowLog
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.stages.spec import RunSpec, Stage, model_rows

BATCHES_AHEAD = 2
"""Batches that are read and decoded ahead of the one that is scored."""
READ_BYTES = 64 << 20
"""Encoded images that a worker without a device reads at once, as far as the listing knows their sizes."""
EX_UNAVAILABLE = 69
"""Exit code of a worker whose device is lost (sysexits.h)."""

Step = tuple[Stage, AbstractContextManager[Any]]
"""A stage, and the lock that its calls take."""


class Worker:
    """Runs a slice of the stages over blocks.

    A block of the manifest is cut into batches. Stages that come before the first one that uses the device run ahead in threads, so that
    reading, decoding and scoring overlap. Where every stage has its batches from the object store, Ray makes several calls at once
    instead, and each stage that uses the device takes them one by one. When the run is to end early, the rest is passed over: another
    attempt labels those rows.

    A batch that the device's memory cannot hold is halved, and so are those after it. A lost device ends this process: Ray starts another
    one, which labels the batches that this one had in hand. It keeps an image from the card with which several were lost.
    """

    def __init__(self, stages: Sequence[type[Stage]], spec: RunSpec, monitor: Any) -> None:
        """`monitor`: handle of the `RunMonitor`."""
        self.has_device = any(stage.uses_device for stage in stages)
        if self.has_device:
            self.device = claim_device(spec.device, spec.job.workers_per_device)  # held as long as this worker lives
            suspects = frozenset(ask(monitor.suspects, otherwise=()))
            spec = spec._replace(device=self.device.device, suspects=suspects)
        self.spec = spec
        self.stages = [stage(spec) for stage in stages]
        steps: list[Step] = [(stage, Lock() if stage.uses_device else nullcontext()) for stage in self.stages]
        ahead = len(list(takewhile(lambda stage: not stage.uses_device, stages)))
        self.first, self.rest = steps[:ahead], steps[ahead:]
        self.threads = ThreadPoolExecutor(BATCHES_AHEAD, thread_name_prefix="ahead")
        self.most_rows: int | None = None
        """Rows that the device's memory holds at once, where that is known."""
        self.monitor = monitor
        self.stop = StopFlag(monitor)
        self.timer = StageTimer(monitor)
        self.row_log = RowLog(spec.run_id)
        self.reporting = Lock()
        self.in_hand: dict[int, Any] = {}
        """The batch of each thread."""

    def __call__(self, block: Any) -> Iterator[Any]:
        for batch in prefetch_map(self._run_first, self._batches(block), self.threads, BATCHES_AHEAD):
            if self.stop.is_set():
                return
            for rows in self._run_rest(batch):
                self._report(rows)
                yield rows

    def _batches(self, block: Any) -> Iterable[Any]:
        if not self.first:  # these batches were cut for the device
            return [block]
        return cut_block(block, self.spec.batch_size, None if self.has_device else READ_BYTES)

    def _run_first(self, batch: Any) -> Any:
        return run_steps(self.first, batch)

    def _run_rest(self, batch: Any) -> Iterator[Any]:
        """Run the stages from the first one that uses the device on; yields the batch whole, or in parts that the memory holds."""
        count = count_rows(batch)
        if self.most_rows is None or count <= self.most_rows:
            self.in_hand[get_ident()], rows = batch, None
            try:
                rows = run_steps(self.rest, batch)
            except DeviceLostError as error:
                self._end(error)
            except Exception as error:
                if not is_out_of_memory(error) or count < 2:
                    raise
                self.most_rows = min(self.most_rows or count, -(-count // 2))
            finally:
                del self.in_hand[get_ident()]
            if rows is not None:
                yield rows
                return
        for part in halves(batch, count):
            yield from self._run_rest(part)

    def _end(self, error: DeviceLostError) -> NoReturn:
        """End this process at once. The driver's and the libraries' threads may hang with the device, so nothing is cleaned up.

        Raises:
            DeviceLostError: devices were lost too often with the same row in hand; this ends the run.
        """
        rows = [row for batch in list(self.in_hand.values()) for row in batch[schema.ROW_ID].tolist()]
        losses = ask(self.monitor.add_loss, rows, otherwise=1)
        if losses >= MAX_LOSSES:
            raise DeviceLostError(f"{error}; that happened {losses} times with the same images in hand") from error
        print(f"worker {os.getpid()} ends: {error}", file=sys.stderr, flush=True)
        os._exit(EX_UNAVAILABLE)

    def _report(self, rows: Any) -> None:
        """Tell the monitor and the log about finished rows, as the first model has them, and the monitor the time spent."""
        with self.reporting:
            if self.rest:
                labeled = model_rows(rows, self.spec.models[0].name)
                size = pc.sum(labeled.column(schema.SIZE_BYTES)).as_py() or 0
                statuses = Counter(labeled.column(schema.STATUS).to_pylist())
                self.monitor.add.remote(dict(statuses), size)
                if count_failures(statuses):
                    self.row_log.log(labeled)
            self.timer.report(sum((Counter(stage.seconds) for stage in self.stages), Counter()))


def run_steps(steps: Sequence[Step], batch: Any) -> Any:
    """Pass a batch through stages."""
    for stage, lock in steps:
        with lock:
            batch = stage(batch)
    return batch


def cut_block(block: pa.Table, most_rows: int, most_bytes: int | None) -> Iterator[pa.Table]:
    """Cut a block of the manifest into batches of so many rows at most, and of so many bytes where the listing knows them.

    A batch has a row at least.
    """
    if most_bytes is None:
        yield from (block.slice(start, most_rows) for start in range(0, block.num_rows, most_rows))
        return
    ends = np.cumsum(block.column(schema.SIZE_BYTES).fill_null(0).to_numpy())
    start = 0
    while start < block.num_rows:
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + most_bytes, side="right")) - start
        count = max(1, min(most_rows, fitting))
        yield block.slice(start, count)
        start += count


def count_rows(batch: Any) -> int:
    """Count the rows of a batch: an Arrow table, or columns by name."""
    return batch.num_rows if isinstance(batch, pa.Table) else len(next(iter(batch.values()), ()))


def halves(batch: Any, count: int) -> tuple[Any, Any]:
    """Cut a batch of `count` rows in two."""
    half = -(-count // 2)
    if isinstance(batch, pa.Table):
        return batch.slice(0, half), batch.slice(half)
    return {name: column[:half] for name, column in batch.items()}, {
        name: column[half:] for name, column in batch.items()
    }

"""The workers: each is a Ray actor that runs a slice of the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import takewhile
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlcls_ray import schema
from mlcls_ray.job.devices import claim_device
from mlcls_ray.job.monitor import StageTimer, StopFlag, count_failures
from mlcls_ray.job.row_log import RowLog
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.stages.spec import RunSpec, Stage, model_rows

BATCHES_AHEAD = 2
"""Batches that are read and decoded ahead of the one that is scored."""


class Worker:
    """Runs a slice of the stages over blocks.

    A block of the manifest is cut into batches. Stages that come before the first one that uses the device run ahead in threads, so that
    reading, decoding and scoring overlap. When the run is to end early, the rest is passed over: another attempt labels those rows.
    """

    def __init__(self, stages: Sequence[type[Stage]], spec: RunSpec, monitor: Any) -> None:
        """`monitor`: handle of the `RunMonitor`."""
        if any(stage.uses_device for stage in stages):
            self.device = claim_device(spec.device, spec.job.workers_per_device)  # held as long as this worker lives
            spec = spec._replace(device=self.device.device)
        self.spec = spec
        self.stages = [stage(spec) for stage in stages]
        ahead = len(list(takewhile(lambda stage: not stage.uses_device, stages)))
        self.first, self.rest = self.stages[:ahead], self.stages[ahead:]
        self.threads = ThreadPoolExecutor(BATCHES_AHEAD, thread_name_prefix="ahead")
        self.monitor = monitor
        self.stop = StopFlag(monitor)
        self.timer = StageTimer(monitor)
        self.row_log = RowLog(spec.run_id)

    def __call__(self, block: Any) -> Iterator[Any]:
        for batch in prefetch_map(self._run_first, self._batches(block), self.threads, BATCHES_AHEAD):
            if self.stop.is_set():
                return
            rows = run_stages(self.rest, batch)
            if self.rest:
                self._report(model_rows(rows, self.spec.models[0].name))
            self.timer.report(sum((Counter(stage.seconds) for stage in self.stages), Counter()))
            yield rows

    def _batches(self, block: Any) -> Iterable[Any]:
        if not self.first:  # pixels come in blocks that were cut for the device
            return [block]
        size = self.spec.batch_size
        return (block.slice(start, size) for start in range(0, block.num_rows, size))

    def _run_first(self, batch: Any) -> Any:
        return run_stages(self.first, batch)

    def _report(self, rows: pa.Table) -> None:
        """Tell the monitor and the log about finished rows, as the first model has them."""
        size = pc.sum(rows.column(schema.SIZE_BYTES)).as_py() or 0
        statuses = Counter(rows.column(schema.STATUS).to_pylist())
        self.monitor.add.remote(dict(statuses), size)
        if count_failures(statuses):
            self.row_log.log(rows)


def run_stages(stages: Sequence[Stage], batch: Any) -> Any:
    """Pass a batch through stages."""
    return reduce(lambda columns, stage: stage(columns), stages, batch)

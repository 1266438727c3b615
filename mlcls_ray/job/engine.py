"""Which engine a run uses: decided once, on one of its workers' machines, written into `run.json`, checked by each worker."""

from __future__ import annotations

from typing import NamedTuple

import ray
import ray.exceptions

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import (
    EngineConfig,
    cache_path,
    choose,
    default_engine,
    fixed_batch,
    load_cached,
    needs_autotune,
)
from mlcls_ray.errors import RunError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model, open_shipped, ship
from mlcls_ray.models.zoo import STARTER

WORTH_ROWS = 2000
"""Fewer images than this are labeled before the trial would have paid off."""


class ModelSource(NamedTuple):
    """Where a worker's machine has the model from: its own cache, or the files that the driver shipped."""

    source: str
    fingerprint: str
    shipped: ray.ObjectRef | None = None

    def open(self, job: LabelJob) -> Model:
        """The model on this machine.

        Raises:
            RunError: it is another one here than on the driver.
        """
        shipped = ray.get(self.shipped) if self.shipped is not None else None
        model = open_model(self.source, job.s3) if shipped is None else open_shipped(self.fingerprint, shipped)
        if model.fingerprint != self.fingerprint:
            raise RunError(
                f"model '{self.source}' has fingerprint {model.fingerprint[:12]} on this node and "
                f"{self.fingerprint[:12]} on the driver"
            )
        return model


def model_source(job: LabelJob, model: Model, nodes: int) -> ModelSource:
    """The starter ships with the package; on one machine the driver's folder is the workers' too. Else Ray brings the files."""
    is_at_hand = job.model == STARTER or nodes == 1
    return ModelSource(job.model, model.fingerprint, None if is_at_hand else ray.put(ship(model)))


def choose_for_run(job: LabelJob, model: Model, device: Device, nodes: int, threads: int, rows: int) -> EngineConfig:
    """The engine and precision of a new run of so many rows; `threads` of one worker.

    Raises:
        RunError: the model cannot be scored at all.
    """
    engine, precision = job.engine, job.precision
    on_cpu, batch_size = device.kind == "cpu", fixed_batch(job.batch_size, device)
    if not needs_autotune(engine, precision, device):
        reason = "as the job says" if "auto" not in (engine, precision) else f"on {device.kind} auto is Paddle in fp32"
        return default_engine(engine, precision, reason, batch_size)
    if rows < WORTH_ROWS:
        # What card the workers have is not known here.
        path = cache_path(engine, precision, model, device, threads, job.batch_size) if on_cpu else None
        too_few = f"{rows} images are too few to try engines for"
        return (path and load_cached(path)) or default_engine(engine, precision, too_few, batch_size)
    card = {} if on_cpu else {"num_gpus": 1}
    shown = device if on_cpu else Device(device.kind)  # Ray shows the task one card, as the first
    remote = ray.remote(num_cpus=1, max_calls=1, max_retries=1, scheduling_strategy="SPREAD", **card)
    task = remote(_choose_here)  # its process ends with it: it has loaded every engine that is installed
    try:
        choice: EngineConfig = ray.get(task.remote(job, model_source(job, model, nodes), shown, threads))
    except ray.exceptions.RayTaskError as error:
        raise RunError(str(error.cause)) from None
    return choice


def _choose_here(job: LabelJob, source: ModelSource, device: Device, threads: int) -> EngineConfig:
    return choose(job.engine, job.precision, source.open(job), device, threads, job.batch_size)

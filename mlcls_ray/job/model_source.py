"""A model on its way to the workers, and the choice of its engine on one of their machines."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import ray
import ray.exceptions

from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import (
    EngineConfig,
    TrialRequest,
    autotune,
    cache_path,
    default_engine,
    fixed_batch,
    load_cached,
    needs_autotune,
)
from mlcls_ray.engines.reference import cached_reference
from mlcls_ray.errors import RunError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model, open_shipped, ship
from mlcls_ray.models.convert.onnx import has_onnx
from mlcls_ray.models.zoo import STARTER

WORTH_ROWS = 2000
"""Fewer images than this are labeled before a trial of engines would have paid off."""


class ModelSource(NamedTuple):
    """The place that a worker's machine takes the model from: its own cache, or the files that the driver shipped."""

    source: str
    fingerprint: str
    shipped: ray.ObjectRef | None = None

    def open(self, s3: S3Options) -> Model:
        """Open the model on this machine.

        Raises:
            RunError: it is another one here than on the driver.
        """
        shipped = ray.get(self.shipped) if self.shipped is not None else None
        model = open_model(self.source, s3) if shipped is None else open_shipped(self.fingerprint, shipped)
        if model.fingerprint != self.fingerprint:
            raise RunError(
                f"model '{self.source}' has fingerprint {model.fingerprint[:12]} on this node and "
                f"{self.fingerprint[:12]} on the driver"
            )
        return model


def model_source(job: LabelJob, model: Model, nodes: int) -> ModelSource:
    """Say where workers find the model. The starter ships with the package, and on one machine the driver's folder is the workers' too;
    else Ray brings the files.
    """
    is_at_hand = job.model == STARTER or nodes == 1
    return ModelSource(job.model, model.fingerprint, None if is_at_hand else ray.put(ship(model)))


def choose_engine(
    job: LabelJob, model: Model, thresholds: np.ndarray, device: Device, nodes: int, threads: int, rows: int
) -> EngineConfig:
    """Choose the engine and precision of a new run of so many rows, for its thresholds float32 [C]; `threads` of one worker.

    Raises:
        RunError: the model cannot be scored at all.
    """
    engine, precision, batch_size = job.engine, job.precision, fixed_batch(job.batch_size, device)
    if not needs_autotune(engine, precision, device):
        reason = (
            "as the job says" if "auto" not in (engine, precision) else f"on {device.kind} nothing is tried for auto"
        )
        return default_engine(engine, precision, reason, batch_size, device)
    if rows < WORTH_ROWS:
        # Which accelerator the workers have is not known here.
        request = _trial_request(job, model, thresholds, device, threads)
        reason = f"{rows} images are too few to try engines for"
        default = default_engine(engine, precision, reason, batch_size, device)
        if not device.is_cpu:
            return with_cached_reference(default, model)
        path = cache_path(request)
        return (path and load_cached(path)) or (default if engine != "auto" else without_paddle(default, model, nodes))
    # Its process ends with it, because it has loaded every engine that is installed.
    options = {"num_cpus": 1, "max_calls": 1, "max_retries": 1, "scheduling_strategy": "SPREAD"}
    task = ray.remote(**options, **device.ray_options())(_choose_here)
    source = model_source(job, model, nodes)
    try:
        config: EngineConfig = ray.get(task.remote(job, source, thresholds, device.in_worker(), threads))
    except ray.exceptions.RayTaskError as error:
        raise RunError(str(error.cause)) from None
    return config


def without_paddle(config: EngineConfig, model: Model, nodes: int) -> EngineConfig:
    """Take OpenVINO in fp32 in place of Paddle, which each worker takes seconds to load, where the model's graph needs no conversion.

    It differs from Paddle's scores by rounding only, so that it needs no trial.
    """
    if config.precision == "fp32" and nodes == 1 and has_onnx(model) and find_spec("openvino") is not None:
        return config.model_copy(update={"engine": "openvino"})
    return config


def with_cached_reference(config: EngineConfig, model: Model) -> EngineConfig:
    """Add Paddle's scores of the golden images where this machine has them, so that each worker's device is checked with them.

    Not to a precision that the job names and that was not tried: it may differ by more than a check would let through.
    """
    reference = cached_reference(model) if config.precision == "fp32" else None
    rows = () if reference is None else tuple(tuple(map(float, row)) for row in reference)
    return config.model_copy(update={"reference": rows})


def _choose_here(
    job: LabelJob, source: ModelSource, thresholds: np.ndarray, device: Device, threads: int
) -> EngineConfig:
    return autotune(_trial_request(job, source.open(job.s3), thresholds, device, threads))


def _trial_request(job: LabelJob, model: Model, thresholds: np.ndarray, device: Device, threads: int) -> TrialRequest:
    return TrialRequest(
        engine=job.engine,
        precision=job.precision,
        model=model,
        thresholds=thresholds,
        device=device,
        threads=threads,
        batch_size=job.batch_size,
        has_pixels_on_card=job.placement == "card",
    )

"""Trials: each candidate scores the golden images, is compared with Paddle in fp32, and is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlcls_ray.config import BatchSizeOrAuto, EngineName, EngineOrAuto, Precision, PrecisionOrAuto
from mlcls_ray.devices import Device
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.engine_config import Trial, fixed_batch
from mlcls_ray.engines.golden import disagreement, golden_pixels
from mlcls_ray.engines.load import LoadEngine, load_engine
from mlcls_ray.errors import short_message
from mlcls_ray.models.artifact import Model

TRIAL_S = 1.5
"""Seconds that a candidate is timed at most. At least three batches are timed, unless the golden images alone take longer."""
BATCH_SIZES = (4, 8, 16, 32)
"""Batch sizes that `batch_size: auto` tries with the chosen engine."""
MIN_GAIN = 1.03
"""A larger batch must be so much faster: it needs more memory, and more work is lost with a worker."""
SLOW_IMAGES = 4
"""Golden images for a network that takes longer than a trial for that many."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialRequest:
    """The need for an engine: a model, its thresholds, a device and what the user asked for."""

    engine: EngineOrAuto
    precision: PrecisionOrAuto
    model: Model
    thresholds: np.ndarray
    """Those of the run, float32 [C]: an engine must give the same labels at them."""
    device: Device
    threads: int
    """CPU threads of one worker."""
    batch_size: BatchSizeOrAuto


@dataclass(frozen=True)
class TrialOptions:
    """Settings of the trials. Tests pass their own."""

    trial_s: float = TRIAL_S
    clock: Callable[[], float] = time.perf_counter
    load: LoadEngine = load_engine


def score_reference(request: TrialRequest, options: TrialOptions) -> tuple[np.ndarray, np.ndarray]:
    """Score the golden images with Paddle in fp32; only SLOW_IMAGES of them if the network is slow. Returns pixels and scores."""
    engine = options.load("paddle", request.model, request.device, request.threads, "fp32")
    engine.warm_up(1)
    pixels = golden_pixels(request.model)
    started = options.clock()
    first = engine.score(pixels[:SLOW_IMAGES])
    if options.clock() - started > options.trial_s:
        return pixels[:SLOW_IMAGES], first
    return pixels, np.concatenate([first, engine.score(pixels[SLOW_IMAGES:])])


def try_candidate(
    name: EngineName,
    precision: Precision,
    request: TrialRequest,
    options: TrialOptions,
    pixels: np.ndarray,
    reference: np.ndarray,
) -> Trial:
    """Compare one candidate with the reference, and time it."""
    batch_size = fixed_batch(request.batch_size, request.device)
    try:
        engine = options.load(name, request.model, request.device, request.threads, precision)
        engine.warm_up(len(pixels))  # not more: OpenVINO scores as many images as it was compiled for
        started = options.clock()
        actual = engine.score(pixels)
        seconds = options.clock() - started
        rate = len(pixels) / seconds
        if seconds <= options.trial_s:  # otherwise the network is large, and this was trial enough
            engine.warm_up(batch_size)
            rate = _rate(engine, pixels, batch_size, options)
    except Exception as error:  # an engine that fails is no candidate, whatever it raises
        return Trial(engine=name, precision=precision, rejected_because=short_message(error)[:200])
    return Trial(
        engine=name,
        precision=precision,
        images_per_s=round(rate, 2),
        difference=float(np.abs(actual - reference).max()) if np.isfinite(actual).all() else None,
        rejected_because=disagreement(reference, actual, request.thresholds),
    )


def best_batch(best: Trial, default: int, request: TrialRequest, options: TrialOptions, pixels: np.ndarray) -> int:
    """Return the smallest batch size that is about as fast as the fastest, among those for which there is time for a trial.

    On a CPU a network that is too slow for any trial gets the smallest batch: a larger one gains nothing, and costs memory and time.
    """
    sizes = [size for size in BATCH_SIZES if size != default and 3 * size / best.images_per_s <= options.trial_s]
    if request.device.is_cpu and not sizes:
        return BATCH_SIZES[0]
    rates = {default: best.images_per_s}
    engine = options.load(best.engine, request.model, request.device, request.threads, best.precision)
    for size in sizes:
        engine.warm_up(size)
        rates[size] = _rate(engine, pixels, size, options)
    return min(size for size, rate in rates.items() if rate * MIN_GAIN >= max(rates.values()))


def _rate(engine: Engine, pixels: np.ndarray, batch_size: int, options: TrialOptions) -> float:
    """Measure images per second, by the median batch."""
    batch = np.resize(pixels, (batch_size, *pixels.shape[1:]))
    times: list[float] = []
    while len(times) < 3 or sum(times) < min(options.trial_s, 20 * times[0]):
        started = options.clock()
        engine.score(batch)
        times.append(options.clock() - started)
    return batch_size / statistics.median(times)

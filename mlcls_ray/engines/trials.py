"""Trials: each candidate scores the golden images, is compared with Paddle in fp32, and is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import Engine, Pixels
from mlcls_ray.engines.engine_config import Trial, fixed_batch
from mlcls_ray.engines.failures import is_out_of_memory
from mlcls_ray.engines.golden import disagreement, golden_pixels
from mlcls_ray.engines.load import LoadEngine, load_engine
from mlcls_ray.engines.onnxruntime_device import put_on_card
from mlcls_ray.engines.reference import golden_reference
from mlcls_ray.errors import short_message
from mlcls_ray.field_types import BatchSizeOrAuto, EngineName, EngineOrAuto, Precision, PrecisionOrAuto
from mlcls_ray.models.artifact import Model

TRIAL_S = 1.5
"""Seconds that a candidate is timed at most. At least three batches are timed, unless the golden images alone take longer."""
BATCH_SIZES, BATCH_SIZES_ON_DEVICES = (4, 8, 16, 32), (64, 128, 256)
"""Batch sizes that `batch_size: auto` tries with the chosen engine, on a CPU and on other devices."""
MIN_GAIN = 1.03
"""A larger batch must be so much faster: it needs more memory, and more work is lost with a worker."""


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
    has_pixels_on_card: bool = False
    """True where a job's pixels are made on the card. Then they are there in the trials, too: copies from host memory would take as long as
    the scoring, and hide what a larger batch gains."""


@dataclass(frozen=True)
class TrialOptions:
    """Settings of the trials. Tests pass their own."""

    trial_s: float = TRIAL_S
    clock: Callable[[], float] = time.perf_counter
    load: LoadEngine = field(default=partial(load_engine, is_brief=True))
    """Loads engines that start soon: on a card, to try all kernels of each convolution takes longer than the rest of the trials, and moves
    a rate by some percent, where precisions differ by half."""
    put_on_card: Callable[[np.ndarray, int], Pixels] = put_on_card
    """Copies pixels to the card with this number."""


def score_reference(request: TrialRequest, options: TrialOptions) -> tuple[np.ndarray, np.ndarray]:
    """Return the golden images and Paddle's scores of them in fp32, fewer if the network is slow. See `golden_reference`."""
    reference = golden_reference(request.model, request.threads, options.load, options.clock, options.trial_s)
    return golden_pixels(request.model, end=len(reference)), reference


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
        # On a CPU not more than are scored: OpenVINO scores as many images as it was compiled for. Other devices pad to the one size.
        engine.warm_up(len(pixels) if request.device.is_cpu else batch_size)
        started = options.clock()
        actual = engine.score(pixels)
        seconds = options.clock() - started
        rate = len(pixels) / seconds
        if seconds <= options.trial_s:  # otherwise the network is large, and this was trial enough
            engine.warm_up(batch_size)
            rate = _rate(engine, pixels, batch_size, request, options)
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
    tried = BATCH_SIZES if request.device.is_cpu else BATCH_SIZES_ON_DEVICES
    sizes = [size for size in tried if size != default and 3 * size / best.images_per_s <= options.trial_s]
    if request.device.is_cpu and not sizes:
        return BATCH_SIZES[0]
    rates = {default: best.images_per_s}
    engine = options.load(best.engine, request.model, request.device, request.threads, best.precision)
    for size in sizes:
        try:
            engine.warm_up(size)
            rates[size] = _rate(engine, pixels, size, request, options)
        except Exception as error:  # the sizes grow, and so does the memory that they need
            if not is_out_of_memory(error):
                raise
            break
    return min(size for size, rate in rates.items() if rate * MIN_GAIN >= max(rates.values()))


def _rate(engine: Engine, pixels: np.ndarray, batch_size: int, request: TrialRequest, options: TrialOptions) -> float:
    """Measure images per second, by the median batch."""
    in_host = np.resize(pixels, (batch_size, *pixels.shape[1:]))
    batch: Pixels = options.put_on_card(in_host, request.device.index) if request.has_pixels_on_card else in_host
    times: list[float] = []
    while len(times) < 3 or sum(times) < min(options.trial_s, 20 * times[0]):
        started = options.clock()
        engine.score(batch)
        times.append(options.clock() - started)
    return batch_size / statistics.median(times)

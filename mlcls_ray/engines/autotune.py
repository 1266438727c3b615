"""`engine: auto`: what is fastest here among what gives the same labels, tried on the golden images and remembered by machine and model."""

from __future__ import annotations

import hashlib
import platform
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import numpy as np
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from mlcls_ray.config import BatchSizeOrAuto, EngineName, EngineOrAuto, Precision, PrecisionOrAuto
from mlcls_ray.devices import Device
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import RunError, short_message
from mlcls_ray.images.decode import decode
from mlcls_ray.labels.select import above_threshold
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home

GOLDEN_FOLDER = Path(__file__).parent.parent / "demo"
GOLDEN_IMAGES, SLOW_GOLDEN = 12, 4
GOLDEN_S = 0.1
"""How long a worker goes on checking itself after its first batch: every worker of every run pays for it before its first image."""
TOLERANCE = 0.01
"""How far a score may be from Paddle's in fp32, beside the labels being the same. bf16 on the starter is 0.08 off, and changes a label
in every twentieth image; fp32 of any engine is 1e-4 off at most."""
TRIAL_S = 1.5
"""How long one candidate is timed, at most. At least three batches are, unless the golden images take longer than that."""
TRIALS_VERSION = 2
"""Raised when trials are made in another way: verdicts that were kept before count no more."""
BATCH_SIZE, BATCH_SIZE_ON_CARDS = 16, 64
"""Where `batch_size: auto` is not tried."""
BATCH_SIZES = (4, 8, 16, 32)
"""What `batch_size: auto` tries with the engine that was chosen."""
WORTH_A_LARGER_BATCH = 1.03
"""How much faster it must be: a larger batch costs memory, and more of it is lost with a worker."""
PACKAGES = {
    "paddle": "paddlepaddle",
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "paddle on cards": "paddlepaddle-gpu",
    "onnxruntime on cards": "onnxruntime-gpu",
}
CANDIDATES: dict[EngineName, tuple[Precision, ...]] = {
    "paddle": ("fp32", "bf16"),
    "openvino": ("fp32", "bf16"),
    "onnxruntime": ("fp32",),
}
GPU_CANDIDATES: dict[EngineName, tuple[Precision, ...]] = {
    "paddle": ("fp32", "fp16"),
    "tensorrt": ("fp16",),
    "onnxruntime": ("fp16",),
}
TRIED_ON = {"cpu": CANDIDATES, "gpu": GPU_CANDIDATES}
"""On the other kinds of devices there is Paddle in fp32 only."""


class Trial(BaseModel):
    """One candidate: images per second, the largest difference of a score, and why it was not taken (empty: it could have been)."""

    model_config = ConfigDict(frozen=True)

    engine: EngineName
    precision: Precision
    images_per_s: float = 0.0
    difference: float = 0.0
    refused: str = ""


class EngineConfig(BaseModel):
    """What executes a run's network, and why. `golden`: Paddle's fp32 scores of the golden images, [12 or 4][C]; empty: not tried."""

    model_config = ConfigDict(frozen=True)

    engine: EngineName
    precision: Precision
    reason: str
    trials: tuple[Trial, ...] = ()
    golden: tuple[tuple[float, ...], ...] = ()
    batch_size: int = BATCH_SIZE

    @property
    def images_per_s(self) -> float | None:
        """What the chosen candidate scored alone in its trial; None where nothing was tried."""
        rates = [
            trial.images_per_s
            for trial in self.trials
            if (trial.engine, trial.precision) == (self.engine, self.precision)
        ]
        return next(filter(None, rates), None)


def default_engine(
    engine: EngineOrAuto, precision: PrecisionOrAuto, reason: str, batch_size: int = BATCH_SIZE
) -> EngineConfig:
    """A choice without a trial; what is `auto` becomes Paddle in fp32."""
    return EngineConfig(
        engine="paddle" if engine == "auto" else engine,
        precision="fp32" if precision == "auto" else precision,
        reason=reason,
        batch_size=batch_size,
    )


def fixed_batch(batch_size: BatchSizeOrAuto, device: Device) -> int:
    """What was asked for, or what `auto` is before anything was tried."""
    if batch_size != "auto":
        return batch_size
    return BATCH_SIZE if device.kind == "cpu" else BATCH_SIZE_ON_CARDS


def resolve_engine(
    engine: EngineOrAuto,
    precision: PrecisionOrAuto,
    model: Model,
    device: Device,
    threads: int,
    batch_size: BatchSizeOrAuto,
) -> EngineConfig:
    """What was asked for, or where that leaves something open that can be tried, what `choose` finds. Raises as `choose`."""
    if needs_autotune(engine, precision, device):
        return choose(engine, precision, model, device, threads, batch_size)
    return default_engine(engine, precision, "as asked for", fixed_batch(batch_size, device))


def needs_autotune(engine: EngineOrAuto, precision: PrecisionOrAuto, device: Device) -> bool:
    """Whether there is more than one candidate on the device."""
    return "auto" in (engine, precision) and device.kind in TRIED_ON


def choose(
    engine: EngineOrAuto,
    precision: PrecisionOrAuto,
    model: Model,
    device: Device,
    threads: int,
    batch_size: BatchSizeOrAuto,
) -> EngineConfig:
    """Try what `engine` and `precision` leave open on this machine; a verdict that is known is taken as it is.

    Raises:
        RunError: Paddle itself cannot score the golden images.
    """
    path = cache_path(engine, precision, model, device, threads, batch_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = load_cached(path)
        if known is not None:
            return known
        choice = _try(engine, precision, model, device, threads, batch_size)
        temporary = path.with_suffix(".part")
        temporary.write_text(choice.model_dump_json())
        temporary.replace(path)
        return choice


def cache_path(
    engine: EngineOrAuto,
    precision: PrecisionOrAuto,
    model: Model,
    device: Device,
    threads: int,
    batch_size: BatchSizeOrAuto,
) -> Path:
    """Where the verdict for this machine type, model and versions is kept."""
    versions = [_version(package) for package in PACKAGES.values()]
    told = [
        engine,
        precision,
        model.fingerprint,
        model.preprocess_fingerprint("exact"),
        device.kind,
        _processor() if device.kind == "cpu" else _card(device),
        threads,
        batch_size,
        TRIALS_VERSION,
        *versions,
    ]
    return home() / "choices" / f"{hashlib.sha256(repr(told).encode()).hexdigest()[:32]}.json"


def load_cached(path: Path) -> EngineConfig | None:
    try:
        return EngineConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def check_golden(engine: Engine, model: Model, choice: EngineConfig, batch_size: int) -> None:
    """Whether this machine scores the golden images as the one that made the choice did: a batch at least, more while there is time.

    Raises:
        RunError: it does not; a cluster must give the same labels on each of its machines.
    """
    if not choice.golden:
        return
    scored: list[np.ndarray] = []
    began = time.perf_counter()
    for start in range(0, len(choice.golden), batch_size):
        scored.append(engine.score(golden_pixels(model, start, min(start + batch_size, len(choice.golden)))))
        if time.perf_counter() - began > GOLDEN_S:
            break
    found = np.concatenate(scored)
    told = np.array(choice.golden[: len(found)], np.float32)
    reason = _disagreement(told, found, np.array(model.thresholds, np.float32))
    if reason:
        raise RunError(
            f"engine {engine.name} ({engine.precision}) on this machine ({platform.node()}) does not score as Paddle did where the run "
            f"was planned: {reason}; take this machine out of the cluster, or use --engine paddle --precision fp32"
        )


def golden_pixels(model: Model, start: int = 0, end: int = GOLDEN_IMAGES) -> np.ndarray:
    """uint8 [12, H, W, 3]: the demo photographs, which ship with the package; or some of them."""
    paths = sorted(GOLDEN_FOLDER.glob("*.jpg"))[start:end]
    return np.stack([model.preprocess.to_pixels(decode(path.read_bytes()).image) for path in paths])


def _try(
    engine: EngineOrAuto, precision: PrecisionOrAuto, model: Model, device: Device, threads: int, asked: BatchSizeOrAuto
) -> EngineConfig:
    batch_size = fixed_batch(asked, device)
    thresholds = np.array(model.thresholds, np.float32)
    pixels, told = _scored_by_paddle(model, device, threads)
    trials = [
        _trial(*one, model, device, threads, batch_size, pixels, told, thresholds)
        for one in _open(engine, precision, TRIED_ON[device.kind])
    ]
    good = [trial for trial in trials if not trial.refused]
    golden = tuple(tuple(float(score) for score in row) for row in told)
    if not good:
        reason = "no candidate gives Paddle's labels: " + "; ".join(one.refused for one in trials)
        chosen = default_engine("auto", "auto", reason, batch_size)
        return chosen.model_copy(update={"trials": tuple(trials), "golden": golden})
    best = max(good, key=lambda trial: trial.images_per_s)
    reason = f"fastest of {len(trials)} that were tried: {best.images_per_s:.1f} images/s with {threads} thread(s)"
    if asked == "auto":
        batch_size = _best_batch(best, batch_size, model, device, threads, pixels)
    return EngineConfig(
        engine=best.engine,
        precision=best.precision,
        reason=reason,
        trials=tuple(trials),
        golden=golden,
        batch_size=batch_size,
    )


def _scored_by_paddle(model: Model, device: Device, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """The golden images with Paddle's fp32 scores of them; of a network that takes seconds for them, so many as end the trials in time."""
    engine = load_engine("paddle", model, device, threads)
    engine.warm_up(1)
    pixels = golden_pixels(model)
    began = time.perf_counter()
    first = engine.score(pixels[:SLOW_GOLDEN])
    if time.perf_counter() - began > TRIAL_S:
        return pixels[:SLOW_GOLDEN], first
    return pixels, np.concatenate([first, engine.score(pixels[SLOW_GOLDEN:])])


def _best_batch(best: Trial, tried: int, model: Model, device: Device, threads: int, pixels: np.ndarray) -> int:
    """The smallest batch that is about as fast as the fastest, among those of which a trial fits into its time.

    Of a network that is too large for that the smallest of all: a larger one gains nothing on a CPU, and costs memory and time.
    """
    sizes = [size for size in BATCH_SIZES if size != tried and 3 * size / best.images_per_s <= TRIAL_S]
    if device.kind == "cpu" and not sizes:
        return BATCH_SIZES[0]
    rates = {tried: best.images_per_s}
    engine = load_engine(best.engine, model, device, threads, best.precision)
    for size in sizes:
        engine.warm_up(size)
        rates[size] = _rate(engine, np.resize(pixels, (size, *pixels.shape[1:])))
    return min(size for size, rate in rates.items() if rate * WORTH_A_LARGER_BATCH >= max(rates.values()))


def _open(
    engine: EngineOrAuto, precision: PrecisionOrAuto, candidates: dict[EngineName, tuple[Precision, ...]]
) -> Iterator[tuple[EngineName, Precision]]:
    for name, precisions in candidates.items():
        if engine in ("auto", name):
            yield from product([name], [one for one in precisions if precision in ("auto", one)])


def _trial(
    engine: EngineName,
    precision: Precision,
    model: Model,
    device: Device,
    threads: int,
    batch_size: int,
    pixels: np.ndarray,
    told: np.ndarray,
    thresholds: np.ndarray,
) -> Trial:
    try:
        loaded = load_engine(engine, model, device, threads, precision)
        loaded.warm_up(len(pixels))  # what is compiled for a larger batch would score all of that
        began = time.perf_counter()
        found = loaded.score(pixels)
        rate = len(pixels) / (time.perf_counter() - began)
        if len(pixels) / rate <= TRIAL_S:  # else that was trial enough: it is a large network
            loaded.warm_up(batch_size)
            rate = _rate(loaded, np.resize(pixels, (batch_size, *pixels.shape[1:])))
    except Exception as error:  # an engine that cannot do it is no candidate, whatever it raises
        return Trial(engine=engine, precision=precision, refused=short_message(error)[:200])
    difference = float(np.abs(found - told).max()) if np.isfinite(found).all() else float("inf")
    return Trial(
        engine=engine,
        precision=precision,
        images_per_s=round(rate, 2),
        difference=difference,
        refused=_disagreement(told, found, thresholds),
    )


def _disagreement(told: np.ndarray, found: np.ndarray, thresholds: np.ndarray) -> str:
    """Why `found` does not stand for `told`; empty where it does."""
    if found.shape != told.shape or not np.isfinite(found).all():
        return "its scores are not numbers"
    difference = float(np.abs(found - told).max())
    if difference > TOLERANCE:
        return f"a score differs by {difference:.2g} from Paddle's in fp32; at most {TOLERANCE} is accepted"
    changed = int((above_threshold(found, thresholds) != above_threshold(told, thresholds)).any(axis=1).sum())
    return f"other labels on {changed} of {len(told)} golden images" if changed else ""


def _rate(engine: Engine, batch: np.ndarray) -> float:
    """Images per second, by the median batch."""
    took: list[float] = []
    while len(took) < 3 or sum(took) < min(TRIAL_S, 20 * took[0]):
        began = time.perf_counter()
        engine.score(batch)
        took.append(time.perf_counter() - began)
    return len(batch) / statistics.median(took)


def _processor() -> str:
    """What tells one machine type from another: the processor's name and its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(
        next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags", "Features")
    )


def _card(device: Device) -> str:
    """The name of the card, as its driver tells it."""
    import paddle

    return str(paddle.device.cuda.get_device_name(device.index))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

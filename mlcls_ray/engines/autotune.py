"""`engine: auto`: the fastest engine here that gives Paddle's labels, found by trials on the golden images and remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mlcls_ray.devices import Device
from mlcls_ray.engines.engine_config import EngineConfig, default_engine, fixed_batch
from mlcls_ray.engines.load import engine_spec
from mlcls_ray.engines.machine import device_identity, package_version
from mlcls_ray.engines.trials import TrialOptions, TrialRequest, best_batch, score_reference, try_candidate
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.field_types import EngineName, EngineOrAuto, Precision, PrecisionOrAuto
from mlcls_ray.models.cache import home, once
from mlcls_ray.registry import ENGINES

__all__ = [
    "EngineConfig", "TrialOptions", "TrialRequest", "autotune", "cache_path", "candidates", "check_request", "default_engine",
    "fixed_batch", "load_cached", "needs_autotune", "resolve_engine", "try_candidates",
]  # fmt: skip

TRIALS_VERSION = 4
"""Increased when trials are made in another way, so that older cached verdicts are not used."""
DEFAULT_OPTIONS = TrialOptions()


def resolve_engine(request: TrialRequest, options: TrialOptions = DEFAULT_OPTIONS) -> EngineConfig:
    """Return the requested engine and precision. If either is `auto`, try the candidates.

    Raises:
        UsageError: as `check_request`.
        RunError: as `autotune`.
    """
    check_request(request.engine, request.precision, request.device)
    if needs_autotune(request.engine, request.precision, request.device):
        return autotune(request, options)
    batch_size = fixed_batch(request.batch_size, request.device)
    return default_engine(request.engine, request.precision, "as requested", batch_size, request.device)


def check_request(engine: EngineOrAuto, precision: PrecisionOrAuto, device: Device) -> None:
    """Check that `engine: auto` leaves an engine for the precision, on kinds of device where engines are tried.

    Raises:
        UsageError: it does not; names the precisions that it does.
    """
    usual = dict.fromkeys(name for _, name in candidates("auto", "auto", device))
    if engine == "auto" and usual and precision not in ("auto", *usual):
        raise UsageError(
            f"precision '{precision}': engine auto has none for it on '{device}'; use {', '.join(usual)} or auto, or name the engine too"
        )


def needs_autotune(engine: EngineOrAuto, precision: PrecisionOrAuto, device: Device) -> bool:
    """Tell whether there is a choice, and candidates on this kind of device."""
    return "auto" in (engine, precision) and any(candidates(engine, precision, device))


def candidates(
    engine: EngineOrAuto, precision: PrecisionOrAuto, device: Device
) -> Iterator[tuple[EngineName, Precision]]:
    """List the engines and precisions that a request leaves open on a device."""
    names: list[EngineName] = [*ENGINES] if engine == "auto" else [engine]
    for name in names:
        for tried in engine_spec(name).candidates.get(device.kind, ()):
            if precision in ("auto", tried):
                yield name, tried


def autotune(request: TrialRequest, options: TrialOptions = DEFAULT_OPTIONS) -> EngineConfig:
    """Try the candidates on this machine and return the fastest that gives Paddle's labels; a cached verdict is used as it is.

    Raises:
        UsageError: Paddle's scores of the golden images are not in the cache, and Paddle is not installed.
        RunError: Paddle itself cannot score the golden images; or no candidate gives its labels on a device that is not a CPU.
    """
    path = cache_path(request)

    def make(path: Path) -> None:
        path.write_text(try_candidates(request, options).model_dump_json())

    once(path, make, lambda path: load_cached(path) is not None)
    return EngineConfig.model_validate_json(path.read_bytes())


def cache_path(request: TrialRequest) -> Path:
    """Return the path of the verdict for this request, machine type and the installed versions."""
    key = [
        request.engine,
        request.precision,
        request.model.fingerprint,
        request.model.preprocess_fingerprint("exact"),
        request.thresholds.astype(np.float32).tobytes(),
        request.device.kind,
        device_identity(request.device),
        request.threads,
        request.batch_size,
        request.has_pixels_on_card,
        TRIALS_VERSION,
        *[package_version(package) for name in ENGINES for package in engine_spec(name).packages],
    ]
    return home() / "choices" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.json"


def load_cached(path: Path) -> EngineConfig | None:
    """Read a verdict, or return None if there is none that can be read."""
    try:
        return EngineConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def try_candidates(request: TrialRequest, options: TrialOptions) -> EngineConfig:
    """Try the candidates, whatever the cache holds. Raises as `autotune`."""
    batch_size = fixed_batch(request.batch_size, request.device)
    pixels, reference = score_reference(request, options)
    trials = tuple(
        try_candidate(engine, precision, request, options, pixels, reference)
        for engine, precision in candidates(request.engine, request.precision, request.device)
    )
    rows = tuple(tuple(float(score) for score in row) for row in reference)
    accepted = [trial for trial in trials if not trial.rejected_because]
    if not accepted:
        reasons = "; ".join(dict.fromkeys(trial.rejected_because for trial in trials))
        reason = f"no candidate gives Paddle's labels: {reasons}"
        if not request.device.is_cpu:  # Paddle there is not what was compared with, and may not even be installed
            raise RunError(
                f"engine auto on '{request.device}': {reason}; `mlcls doctor` says what is missing; or name --engine and --precision, "
                "or use --device cpu"
            )
        fallback = default_engine("auto", "auto", reason, batch_size)
        return fallback.model_copy(update={"trials": trials, "reference": rows})
    best = max(accepted, key=lambda trial: trial.images_per_s)
    if request.batch_size == "auto":
        batch_size = best_batch(best, batch_size, request, options, pixels)
    return EngineConfig(
        engine=best.engine,
        precision=best.precision,
        reason=f"fastest of {len(trials)} candidates: {best.images_per_s:.1f} images/s with {request.threads} thread(s)",
        trials=trials,
        reference=rows,
        batch_size=batch_size,
    )

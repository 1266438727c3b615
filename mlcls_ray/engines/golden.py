"""The golden images, photographs that ship with the package: an engine is compared with Paddle on them, and each worker checks itself."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.engine_config import EngineConfig
from mlcls_ray.errors import RunError
from mlcls_ray.labels.select import above_threshold
from mlcls_ray.models.artifact import Model

GOLDEN_FOLDER = Path(__file__).parents[1] / "demo"
GOLDEN_IMAGES = 12
TOLERANCE = 0.01
"""The largest accepted difference of a score to Paddle's in fp32. bf16 differs by 0.08 on the starter, and changes a label in every
twentieth image; fp32 of any engine differs by 1e-4."""
CHECK_S = 0.1
"""Seconds that a worker may go on checking after its first batch: every worker of every run pays for it before its first image."""


def golden_pixels(model: Model, start: int = 0, end: int = GOLDEN_IMAGES) -> np.ndarray:
    """Load golden images at the model's input size: uint8 [12, H, W, 3], or those from `start` to `end`."""
    return model.load_pixels(sorted(GOLDEN_FOLDER.glob("*.jpg"))[start:end])


NOISE = {"fp32": 1e-4, "tf32": 3e-3, "fp16": TOLERANCE}
"""Differences of scores between machines, by precision: a GPU's libraries choose other kernels on another card, or on another day. A score
that is so near its threshold says nothing about a worker."""


def disagreement(reference: np.ndarray, actual: np.ndarray, thresholds: np.ndarray, noise: float = 0.0) -> str:
    """Say why scores float32 [N, C] do not give the labels of the reference; empty if they do.

    Args:
        thresholds: float32 [C].
        noise: labels are not compared where the reference is so near the threshold.
    """
    if actual.shape != reference.shape or not np.isfinite(actual).all():
        return "its scores are not numbers"
    difference = float(np.abs(actual - reference).max())
    if difference > TOLERANCE:
        return f"a score differs by {difference:.2g} from Paddle's in fp32; at most {TOLERANCE} is accepted"
    differs = above_threshold(actual, thresholds) != above_threshold(reference, thresholds)
    changed = int((differs & (np.abs(reference - thresholds) >= noise)).any(axis=1).sum())
    return f"other labels on {changed} of {len(reference)} golden images" if changed else ""


def check_golden(
    engine: Engine,
    model: Model,
    config: EngineConfig,
    batch_size: int,
    thresholds: np.ndarray,
    check_s: float = CHECK_S,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Check that this machine gives the labels that the engine was chosen for: on one batch, and on more for `check_s` seconds.

    Args:
        config: its `reference` are Paddle's scores of the golden images; nothing is checked without them.
        thresholds: the run's, float32 [C].

    Raises:
        RunError: it does not; a cluster must give the same labels on each of its machines.
    """
    reference = np.array(config.reference, np.float32)
    scored: list[np.ndarray] = []
    started = clock()
    for start in range(0, len(reference), batch_size):
        scored.append(engine.score(golden_pixels(model, start, min(start + batch_size, len(reference)))))
        if clock() - started > check_s:
            break
    if not scored:
        return
    actual = np.concatenate(scored)
    reason = disagreement(reference[: len(actual)], actual, thresholds, NOISE.get(engine.precision, 0.0))
    if reason:
        raise RunError(
            f"engine {engine.name} ({engine.precision}) on this machine ({platform.node()}) does not score as Paddle did where the run "
            f"was planned: {reason}; take this machine out of the cluster, or use --engine paddle --precision fp32"
        )

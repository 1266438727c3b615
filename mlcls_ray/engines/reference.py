"""Paddle's fp32 scores of the golden images, computed on a CPU once and kept beside the model's ONNX graph.

A model cache that holds them, and the graphs, serves a machine without Paddle: `prepare` fills it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.golden import GOLDEN_IMAGES, golden_pixels
from mlcls_ray.engines.load import LoadEngine, load_engine
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home, once
from mlcls_ray.models.convert.device_graph import cached_device_graph
from mlcls_ray.models.convert.onnx import cached_onnx

REFERENCE_VERSION = 1
"""Increased when the golden images change, so that older scores are not used."""
SLOW_IMAGES = 4
"""Golden images for a network that takes longer than a trial for that many."""
SLOW_S = 1.5


def reference_path(model: Model) -> Path:
    """Return the path of the scores in this machine's cache. Its name holds what decides them."""
    decides = (REFERENCE_VERSION, model.preprocess_fingerprint("exact"))
    key = hashlib.sha256(repr(decides).encode()).hexdigest()[:8]
    return home() / "converted" / f"{model.fingerprint[:32]}-golden-{key}.npy"


def cached_reference(model: Model) -> np.ndarray | None:
    """Read the scores, float32 [12 or 4, C]; None where there are none, or none that can be read."""
    return _read(reference_path(model), len(model.vocabulary))


def golden_reference(
    model: Model,
    threads: int,
    load: LoadEngine = load_engine,
    clock: Callable[[], float] = time.perf_counter,
    slow_s: float = SLOW_S,
) -> np.ndarray:
    """Return the scores, float32 [12, C]; [4, C] of a network that takes longer than `slow_s` for the first four images.

    Args:
        threads: CPU threads that Paddle may use, where the cache lacks them.

    Raises:
        UsageError: the cache lacks them, and Paddle is not installed.
        RunError: Paddle cannot score the golden images.
    """

    def make(path: Path) -> None:
        engine = load("paddle", model, Device("cpu"), threads, "fp32")
        engine.warm_up(1)
        pixels = golden_pixels(model)
        started = clock()
        scores = engine.score(pixels[:SLOW_IMAGES])
        if clock() - started <= slow_s:
            scores = np.concatenate([scores, engine.score(pixels[SLOW_IMAGES:])])
        with path.open("wb") as stream:
            np.save(stream, scores.astype(np.float32))

    class_num = len(model.vocabulary)
    path = once(reference_path(model), make, lambda path: _read(path, class_num) is not None)
    scores = _read(path, class_num)
    assert scores is not None  # `once` has checked it
    return scores


def prepare(model: Model) -> list[Path]:
    """Fill this machine's cache with what ONNX Runtime needs of a model, on CPUs and on NVIDIA cards. Returns the files.

    Raises:
        UsageError: a package for the conversion is missing.
        RunError: the model cannot be converted.
    """
    golden_reference(model, os.cpu_count() or 1)
    graphs = [cached_device_graph(model, "fp32"), cached_device_graph(model, "fp16")]
    return [cached_onnx(model), *graphs, reference_path(model)]


def _read(path: Path, class_num: int) -> np.ndarray | None:
    try:
        scores: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    is_whole = scores.ndim == 2 and scores.shape[1] == class_num and len(scores) in (SLOW_IMAGES, GOLDEN_IMAGES)
    return scores if is_whole and scores.dtype == np.float32 and np.isfinite(scores).all() else None

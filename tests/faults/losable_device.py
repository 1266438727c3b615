"""A stage for jobs whose device is lost: it runs in Ray's workers, so it must not import what only tests can."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mlcls_ray.engines.base import Engine
from mlcls_ray.stages.score import Score, Scorer
from mlcls_ray.stages.spec import ModelSpec, RunSpec
from mlcls_ray.storage.uris import path_of_uri

LOSSES = 2


class LosableEngine:
    """A real engine on a device that is lost in the fourth batch of each worker, until that has happened LOSSES times."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.name, self.precision = engine.name, engine.precision
        self.batches = 0

    def warm_up(self, batch_size: int) -> None:
        self.engine.warm_up(batch_size)

    def score(self, pixels: np.ndarray) -> np.ndarray:
        self.batches += 1
        if self.batches == 4 and len(list(self.folder.iterdir())) < LOSSES:
            (self.folder / str(os.getpid())).touch()
            raise RuntimeError(
                "CUDA failure 719: unspecified launch failure ; GPU=0 ; expr=cudaStreamSynchronize(stream);"
            )
        return self.engine.score(pixels)


class ScoreOnLosableDevice(Score):
    """Scores as usual, with that engine."""

    def make_scorer(self, model: ModelSpec, spec: RunSpec) -> Scorer:
        scorer = super().make_scorer(model, spec)
        scorer.engine = LosableEngine(scorer.engine, Path(path_of_uri(spec.job.out) + ".lost"))  # type: ignore[assignment]
        return scorer

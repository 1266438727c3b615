"""A device that is lost while it scores: its worker ends and is replaced, and every row is labeled once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.engines.base import Engine
from mlcls_ray.job.check import check_job
from mlcls_ray.job.label import run_job
from mlcls_ray.job.pipeline import STAGES
from mlcls_ray.stages.score import Score, Scorer
from mlcls_ray.stages.spec import ModelSpec, RunSpec
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import path_of_uri
from mlcls_ray.table.verify import verify
from tests.conftest import hard_links, quick_job
from tests.faults.exactly_once import exactly_once

ROWS, LOSSES = 200, 2


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


@pytest.mark.usefixtures("loopback_ray")
def test_the_worker_is_replaced_and_no_row_is_lost(tiny_folder: Path, tmp_path: Path) -> None:
    lost = tmp_path / "out.lost"
    lost.mkdir()
    images = hard_links(tmp_path / "images", ROWS)
    job = quick_job(
        inputs=(str(images),),
        out=str(tmp_path / "out"),
        model=str(tiny_folder),
        run_id="r",
        batch_size=4,
        block_rows=40,
    )
    stages = [ScoreOnLosableDevice if stage is Score else stage for stage in STAGES]
    (done,) = run_job(check_job(job), stages=stages)
    assert done.statuses == {"ok": ROWS}, "no image is blamed for the device"
    assert exactly_once(job.out, "r", ROWS)
    assert verify(Store(job.out)) == []
    assert len(list(lost.iterdir())) == LOSSES, "each loss ended a process of its own"

"""Run specs for tests of stages: small models that need no files, and jobs with short limits."""

from __future__ import annotations

import numpy as np

from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.engines.autotune import EngineConfig
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.artifact import Model
from mlcls_ray.stages.spec import ModelSpec, Provenance, RunSpec

VOCABULARY = ("cat", "dog", "猫")
PREPROCESS = Preprocess(size=(32, 24), backend="pil", interpolation="BILINEAR")
LIMITS = {"max_bytes": 10**6, "max_pixels": 10**6, "timeout_s": 5.0, "fetch_attempts": 1, "fetch_threads": 4}


class NoSource:
    """A model that no stage of these tests opens."""

    def open(self, s3: S3Options) -> Model:
        raise AssertionError("this stage loads no model")


def model_spec(name: str = "m", preprocess: Preprocess = PREPROCESS, out: str = "", **changes: object) -> ModelSpec:
    spec = ModelSpec(
        source=NoSource(),
        preprocess=preprocess,
        vocabulary=VOCABULARY,
        thresholds=np.full(3, 0.5, np.float32),
        engine=EngineConfig(engine="paddle", precision="fp32", reason="for tests", batch_size=4),
        provenance=Provenance(name, "f", "p", "paddle", "fp32", "0.5", "run"),
        out=out,
    )
    return spec._replace(**changes)  # type: ignore[arg-type]


def run_spec(*models: ModelSpec, rows: int = 100, **job: object) -> RunSpec:
    return RunSpec(
        job=LabelJob.model_validate({**LIMITS, **job}), run_id="run", rows=rows, models=models or (model_spec(),)
    )

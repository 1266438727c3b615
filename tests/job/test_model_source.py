"""The engine of a job that is too small for trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.engine_config import EngineConfig
from mlcls_ray.job.model_source import WORTH_ROWS, choose_engine
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.convert.onnx import cached_onnx


def chosen(model: Model, nodes: int = 1, **fields: object) -> EngineConfig:
    job = LabelJob.model_validate({"inputs": ("a",), "out": "b", "model": str(model.folder), **fields})
    return choose_engine(
        job, model, np.array(model.thresholds, np.float32), parse_device("cpu"), nodes, 1, WORTH_ROWS - 1
    )


def test_a_model_that_is_converted_needs_no_paddle(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path))
    assert chosen(tiny_model).engine == "paddle"
    assert chosen(open_model("starter")).engine == "openvino"
    cached_onnx(tiny_model)
    config = chosen(tiny_model)
    assert (config.engine, config.precision, config.trials) == ("openvino", "fp32", ())
    assert config.reason == f"{WORTH_ROWS - 1} images are too few to try engines for"
    assert chosen(tiny_model, nodes=2).engine == "paddle", "other machines have not converted it"
    assert chosen(tiny_model, precision="bf16").engine == "paddle"
    assert chosen(tiny_model, engine="onnxruntime").engine == "onnxruntime"

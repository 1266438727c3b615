"""`engine: auto`: what is tried, what is refused, what is remembered, and that a worker that drifts is told so."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device
from mlcls_ray.engines import autotune as module
from mlcls_ray.engines.autotune import (
    BATCH_SIZE,
    BATCH_SIZES,
    CANDIDATES,
    SLOW_GOLDEN,
    TOLERANCE,
    EngineConfig,
    check_golden,
    choose,
    default_engine,
    fixed_batch,
    golden_pixels,
)
from mlcls_ray.engines.load import load_engine
from mlcls_ray.engines.openvino import OpenVinoEngine
from mlcls_ray.errors import RunError
from mlcls_ray.job import engine as engine_choice
from mlcls_ray.job.label import label
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model
from mlcls_ray.table import layout

CPU = Device("cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def trial_of(choice: EngineConfig, engine: str, precision: str) -> module.Trial:
    (found,) = [trial for trial in choice.trials if (trial.engine, trial.precision) == (engine, precision)]
    return found


def test_all_candidates_are_tried_once(tiny_model: Model, home: Path) -> None:
    with ThreadPoolExecutor(2) as askers:
        first, second = askers.map(lambda _: choose("auto", "auto", tiny_model, CPU, 1, 4), range(2))
    assert first == second
    assert {(one.engine, one.precision) for one in first.trials} == {
        (name, precision) for name, precisions in CANDIDATES.items() for precision in precisions
    }
    good = [trial for trial in first.trials if not trial.refused]
    assert max(good, key=lambda trial: trial.images_per_s) == trial_of(first, first.engine, first.precision)
    (verdict,) = (home / "choices").glob("*.json")
    before = verdict.stat().st_mtime_ns
    choose("auto", "auto", tiny_model, CPU, 1, 4)
    assert verdict.stat().st_mtime_ns == before
    verdict.write_text("{")  # as a crash of another program may leave it
    assert choose("auto", "auto", tiny_model, CPU, 1, 4).trials


def test_a_batch_size_is_tried_with_the_engine_and_remembered(tiny_model: Model) -> None:
    found = choose("openvino", "fp32", tiny_model, CPU, 1, "auto")
    assert found.batch_size in {*BATCH_SIZES, BATCH_SIZE}
    assert choose("openvino", "fp32", tiny_model, CPU, 1, "auto").batch_size == found.batch_size
    assert choose("openvino", "fp32", tiny_model, CPU, 1, 7).batch_size == 7


def test_a_slow_engine_is_tried_with_small_batches_only(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches of 32 at two images a second would be most of a minute."""
    tried: list[int] = []

    def rate(engine: object, batch: np.ndarray) -> float:
        tried.append(len(batch))
        return 2.0 * len(batch) ** 0.01

    monkeypatch.setattr(module, "_rate", rate)
    assert choose("openvino", "fp32", tiny_model, CPU, 1, "auto").batch_size == BATCH_SIZES[0]
    assert tried == [BATCH_SIZE]


def test_a_large_network_is_not_scored_at_a_larger_batch_than_it_has_images(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO scores as many images as it was compiled for: four of sixteen looked four times as slow as they are."""
    monkeypatch.setattr(module, "TRIAL_S", 0.0)
    compiled: list[int] = []
    warm_up = OpenVinoEngine.warm_up
    monkeypatch.setattr(
        OpenVinoEngine, "warm_up", lambda self, batch_size: (compiled.append(batch_size), warm_up(self, batch_size))
    )
    choose("openvino", "fp32", tiny_model, CPU, 1, 16)
    assert compiled == [SLOW_GOLDEN]


def test_without_a_trial() -> None:
    assert fixed_batch("auto", CPU) == 16
    assert fixed_batch("auto", Device("gpu")) == 64
    assert fixed_batch(3, Device("gpu")) == 3


def test_what_is_asked_for_is_kept(tiny_model: Model) -> None:
    assert {one.engine for one in choose("openvino", "auto", tiny_model, CPU, 1, 4).trials} == {"openvino"}
    assert {one.precision for one in choose("auto", "fp32", tiny_model, CPU, 1, 4).trials} == {"fp32"}
    assert default_engine("auto", "bf16", "").engine == "paddle"


@pytest.mark.parametrize("offset", [2 * TOLERANCE, np.nan])
def test_a_wrong_engine_is_refused(tiny_model: Model, monkeypatch: pytest.MonkeyPatch, offset: float) -> None:
    score = OpenVinoEngine.score
    monkeypatch.setattr(OpenVinoEngine, "score", lambda self, pixels: score(self, pixels) + np.float32(offset))
    found = choose("auto", "fp32", tiny_model, CPU, 1, 4)
    assert found.engine != "openvino"
    assert trial_of(found, "openvino", "fp32").refused
    alone = choose("openvino", "auto", tiny_model, CPU, 1, 4)
    assert (alone.engine, alone.precision) == ("paddle", "fp32")
    assert "no candidate gives Paddle's labels" in alone.reason


def test_other_labels_are_refused(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the tolerance, but over a threshold that lies just there."""
    scores = load_engine("paddle", tiny_model, CPU, 1).score(golden_pixels(tiny_model))
    model = tiny_model.model_copy(update={"thresholds": tuple(float(one) for one in scores[0] + 0.001)})
    score = OpenVinoEngine.score
    monkeypatch.setattr(OpenVinoEngine, "score", lambda self, pixels: score(self, pixels) + np.float32(0.002))
    assert "other labels on" in trial_of(choose("auto", "fp32", model, CPU, 1, 4), "openvino", "fp32").refused


def test_a_missing_engine_is_no_candidate(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = choose("auto", "auto", tiny_model, CPU, 1, 4)
    assert "needs" in trial_of(found, "openvino", "fp32").refused
    assert found.engine != "openvino"


def test_a_worker_that_drifts_is_refused(tiny_model: Model) -> None:
    choice = choose("openvino", "fp32", tiny_model, CPU, 1, 4)
    engine = load_engine(choice.engine, tiny_model, CPU, 1, choice.precision)
    check_golden(engine, tiny_model, choice, 4)
    moved = choice.model_copy(update={"golden": tuple(tuple(one + 0.02 for one in row) for row in choice.golden)})
    with pytest.raises(RunError, match="does not score as Paddle did where the run was planned"):
        check_golden(engine, tiny_model, moved, 4)


@pytest.mark.parametrize(("engine", "precision"), [(name, one) for name in CANDIDATES for one in CANDIDATES[name]])
def test_agreement_of_each_precision_on_trained_weights(engine: str, precision: str) -> None:
    """fp32 of every engine is the same but for rounding; bf16 is coarser, which is why auto does not take it for this model."""
    model = open_model("starter")
    pixels = golden_pixels(model)
    told = load_engine("paddle", model, CPU, 1).score(pixels)
    found = load_engine(engine, model, CPU, 1, precision).score(pixels)  # type: ignore[arg-type]
    assert np.abs(found - told).max() <= (1e-4 if precision == "fp32" else 0.1)


def test_a_run_says_what_it_chose(
    loopback_ray: None, tiny_folder: Path, folder_of_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "WORTH_ROWS", 10)
    job = LabelJob(inputs=(str(folder_of_images),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r")
    assert label(job)
    record = json.loads((tmp_path / "out" / layout.run_json("r")).read_text())
    assert record["choice"]["reason"].startswith("fastest of 5 that were tried")
    table = pq.read_table(tmp_path / "out" / layout.labels_folder("r"))
    assert set(table["engine"].to_pylist()) == {record["choice"]["engine"]}
    assert set(table["precision"].to_pylist()) == {record["choice"]["precision"]}


def test_a_small_run_tries_nothing(
    loopback_ray: None, tiny_folder: Path, folder_of_images: Path, tmp_path: Path
) -> None:
    job = LabelJob(inputs=(str(folder_of_images),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r")
    assert label(job)
    chosen = json.loads((tmp_path / "out" / layout.run_json("r")).read_text())["choice"]
    assert (chosen["engine"], chosen["precision"], chosen["trials"]) == ("paddle", "fp32", [])
    assert "too few" in chosen["reason"]

"""`engine: auto`: which candidates are tried, which are rejected and why, and that verdicts are remembered."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import (
    EngineConfig,
    TrialOptions,
    TrialRequest,
    autotune,
    cache_path,
    candidates,
    check_request,
    default_engine,
    fixed_batch,
    load_cached,
    needs_autotune,
    resolve_engine,
    try_candidates,
)
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.engine_config import BATCH_SIZE, Trial
from mlcls_ray.engines.golden import TOLERANCE, golden_pixels
from mlcls_ray.engines.load import load_engine
from mlcls_ray.engines.onnxruntime import OnnxRuntimeEngine
from mlcls_ray.engines.reference import SLOW_IMAGES, golden_reference, prepare
from mlcls_ray.engines.trials import BATCH_SIZES
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.job.label import label
from mlcls_ray.job.model_source import WORTH_ROWS, with_cached_reference
from mlcls_ray.models.artifact import Model
from mlcls_ray.table import layout
from tests.conftest import hard_links
from tests.engines.device_pixels import HostAccelerator

CPU, GPU = Device("cpu"), Device("gpu")
CPU_CANDIDATES = [
    ("paddle", "fp32"), ("paddle", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"),
]  # fmt: skip


@pytest.fixture(scope="module")
def converted(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs of the tiny model."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLCLS_HOME", str(folder))
        prepare(tiny_model)
    return folder / "converted"


@pytest.fixture(autouse=True)
def home(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model cache with the graphs, and without verdicts and Paddle's scores."""
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path / "home"))
    shutil.copytree(converted, tmp_path / "home" / "converted", ignore=shutil.ignore_patterns("*golden*"))
    return tmp_path / "home"


@pytest.fixture
def request_of(tiny_model: Model):
    """Make a request for the tiny model with its own thresholds, on one thread of the CPU."""

    def make(engine: str = "auto", precision: str = "auto", batch_size: int | str = 4) -> TrialRequest:
        thresholds = np.array(tiny_model.thresholds, np.float32)
        return TrialRequest(
            engine=engine,
            precision=precision,
            model=tiny_model,
            thresholds=thresholds,
            device=CPU,
            threads=1,
            batch_size=batch_size,
        )

    return make


class Clock:
    """A clock that moves only when an engine works."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class TimedEngine:
    """A real engine that takes a number of seconds per image of the fake clock, and adds an offset to its scores."""

    def __init__(self, engine: Engine, clock: Clock, image_s: float, offset: float) -> None:
        self.engine, self.clock, self.image_s, self.offset = engine, clock, image_s, offset
        self.name, self.precision = engine.name, engine.precision
        self.warmed_up: list[int] = []
        self.batches: list[int] = []

    def warm_up(self, batch_size: int) -> None:
        self.warmed_up.append(batch_size)
        self.engine.warm_up(batch_size)

    def score(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        self.clock.seconds += self.image_s * len(pixels)
        return self.engine.score(pixels) + np.float32(self.offset)


class Loader:
    """Loads engines that take `image_s` seconds per image, or what `seconds` says by name; `offsets` are added to scores, by name."""

    def __init__(
        self, image_s: float = 0.01, seconds: dict[str, float] | None = None, offsets: dict[str, float] | None = None
    ) -> None:
        self.clock = Clock()
        self.image_s, self.seconds, self.offsets = image_s, seconds or {}, offsets or {}
        self.loaded: list[TimedEngine] = []

    def __call__(self, name: str, model: Model, device: Device, threads: int, precision: str) -> TimedEngine:
        engine = load_engine(name, model, device, threads, precision)  # type: ignore[arg-type]
        image_s = self.seconds.get(name, self.image_s)
        self.loaded.append(TimedEngine(engine, self.clock, image_s, self.offsets.get(name, 0.0)))
        return self.loaded[-1]

    @property
    def options(self) -> TrialOptions:
        return TrialOptions(clock=self.clock, load=self)  # type: ignore[arg-type]


def trial_of(config: EngineConfig, engine: str, precision: str) -> Trial:
    (trial,) = [trial for trial in config.trials if (trial.engine, trial.precision) == (engine, precision)]
    return trial


def test_batches_are_timed_with_pixels_where_the_job_has_them(request_of) -> None:
    put: list[tuple[int, int]] = []

    def put_on_card(pixels: np.ndarray, index: int) -> np.ndarray:
        put.append((len(pixels), index))
        return pixels

    options = replace(Loader().options, put_on_card=put_on_card)
    try_candidates(request_of("onnxruntime", "fp32"), options)
    assert put == []
    request = replace(request_of("onnxruntime", "fp32"), has_pixels_on_card=True)
    try_candidates(request, options)
    assert put == [(4, 0)]
    assert cache_path(request) != cache_path(request_of("onnxruntime", "fp32"))


def test_the_fastest_candidate_is_chosen(request_of) -> None:
    loader = Loader(seconds={"onnxruntime": 0.001})
    config = autotune(request_of(), loader.options)
    assert [(trial.engine, trial.precision) for trial in config.trials] == CPU_CANDIDATES
    assert (config.engine, config.precision) == ("onnxruntime", "fp32")
    assert trial_of(config, "onnxruntime", "fp32").images_per_s == pytest.approx(1000)
    assert config.images_per_s == pytest.approx(1000)
    assert np.array(config.reference).shape == (12, 3)


def test_a_verdict_is_made_once_and_remembered(request_of, home: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: autotune(request_of()), range(2))
    assert first == second
    (verdict,) = (home / "choices").glob("*.json")
    before = verdict.stat().st_mtime_ns
    assert autotune(request_of()) == first
    assert verdict.stat().st_mtime_ns == before
    verdict.write_text("{")  # as a crash of another program may leave it
    assert autotune(request_of()).trials


def test_other_thresholds_are_another_verdict(request_of) -> None:
    request = request_of()
    other = replace(request, thresholds=request.thresholds + np.float32(0.1))
    assert cache_path(request) == cache_path(replace(request, thresholds=request.thresholds.copy()))
    assert cache_path(request) != cache_path(other)
    assert cache_path(request) != cache_path(replace(request, threads=2))


def test_the_batch_size_is_chosen_with_the_engine(request_of) -> None:
    """All sizes are equally fast on this clock, so the smallest is chosen."""
    config = autotune(request_of("openvino", "fp32", "auto"), Loader().options)
    assert config.batch_size == min(BATCH_SIZES)
    assert autotune(request_of("openvino", "fp32", "auto")).batch_size == config.batch_size
    assert autotune(request_of("openvino", "fp32", 7)).batch_size == 7


def test_a_slow_network_is_not_tried_with_larger_batches(request_of) -> None:
    """Three batches of 32 at two images a second would take most of a minute. OpenVINO scores as many images as it was compiled for."""
    loader = Loader(image_s=0.5)
    config = autotune(request_of("openvino", "fp32", "auto"), loader.options)
    assert config.batch_size == BATCH_SIZES[0]
    assert len(config.reference) == SLOW_IMAGES
    paddle, openvino = loader.loaded
    assert paddle.batches == openvino.batches == [SLOW_IMAGES]
    assert openvino.warmed_up == [SLOW_IMAGES]


def test_without_a_trial(request_of) -> None:
    assert fixed_batch("auto", CPU) == BATCH_SIZE
    assert fixed_batch("auto", Device("gpu")) == 64
    assert fixed_batch(3, Device("gpu")) == 3
    assert default_engine("auto", "bf16", "").engine == "paddle"
    config = resolve_engine(request_of("openvino", "fp32", "auto"))
    assert (config.engine, config.precision, config.batch_size, config.trials) == ("openvino", "fp32", BATCH_SIZE, ())
    assert config.images_per_s is None


def test_candidates_follow_the_request_and_the_device() -> None:
    assert list(candidates("auto", "auto", CPU)) == CPU_CANDIDATES
    assert list(candidates("openvino", "auto", CPU)) == [("openvino", "fp32"), ("openvino", "bf16")]
    assert {engine for engine, _ in candidates("auto", "fp32", CPU)} == {"paddle", "openvino", "onnxruntime"}
    assert list(candidates("auto", "auto", GPU)) == [("onnxruntime", name) for name in ("fp32", "tf32", "fp16")]
    assert list(candidates("tensorrt", "auto", GPU)) == list(candidates("paddle", "auto", GPU)) == []
    assert needs_autotune("auto", "fp32", CPU) and not needs_autotune("paddle", "fp32", CPU)
    assert needs_autotune("auto", "tf32", GPU) and not needs_autotune("paddle", "auto", GPU)
    assert not needs_autotune("auto", "auto", Device("npu"))


@pytest.mark.parametrize(("precision", "kind"), [("bf16", "gpu"), ("int8", "gpu"), ("int8", "cpu"), ("fp16", "cpu")])
def test_a_precision_that_auto_has_no_engine_for_is_refused(precision: str, kind: str) -> None:
    with pytest.raises(
        UsageError, match=f"precision '{precision}': engine auto has none for it on '{kind}'; use fp32,"
    ):
        check_request("auto", precision, Device(kind))  # type: ignore[arg-type]
    check_request("openvino", precision, Device(kind))  # type: ignore[arg-type]
    check_request("auto", "fp32", Device("npu"))


class CardLoader(Loader):
    """Loads what runs on a card, with the CPU in the card's place; `rates` are images per second by precision."""

    def __init__(self, rates: dict[str, float], offsets: dict[str, float] | None = None, most: int = 1000) -> None:
        super().__init__()
        self.rates, self.by_precision, self.most = rates, offsets or {}, most
        self.names: list[str] = []

    def __call__(self, name: str, model: Model, device: Device, threads: int, precision: str) -> TimedEngine:
        self.names.append(f"{name} {precision} {device}")
        if device.is_cpu:
            return super().__call__(name, model, device, threads, precision)
        assert name == "onnxruntime"
        host = HostAccelerator().accelerator
        engine = OnnxRuntimeEngine(model, device, threads, precision, accelerator=host)
        image_s, offset = 1 / self.rates[precision], self.by_precision.get(precision, 0.0)
        self.loaded.append(SmallCard(engine, self.clock, image_s, offset, self.most))
        return self.loaded[-1]


class SmallCard(TimedEngine):
    """A card whose memory takes so many images."""

    def __init__(self, engine: Engine, clock: Clock, image_s: float, offset: float, most: int) -> None:
        super().__init__(engine, clock, image_s, offset)
        self.most = most

    def warm_up(self, batch_size: int) -> None:
        if batch_size > self.most:
            raise RuntimeError("CUDA failure 2: out of memory")
        super().warm_up(batch_size)


RATES = {"fp32": 1000.0, "tf32": 2000.0, "fp16": 4000.0}


def test_trials_on_a_card(request_of) -> None:
    """The reference is Paddle's on the CPU; each precision of ONNX Runtime is tried, and the larger batches with the fastest."""
    loader = CardLoader(RATES)
    config = try_candidates(replace(request_of(batch_size="auto"), device=GPU), loader.options)
    assert loader.names == [
        "paddle fp32 cpu", "onnxruntime fp32 gpu", "onnxruntime tf32 gpu", "onnxruntime fp16 gpu", "onnxruntime fp16 gpu",
    ]  # fmt: skip
    assert (config.engine, config.precision, config.batch_size) == ("onnxruntime", "fp16", 64)
    assert loader.loaded[-1].warmed_up == [128, 256]
    assert [engine.warmed_up for engine in loader.loaded[1:4]] == [[64, 64]] * 3, "one shape for everything"
    assert len(config.reference) == 12


def test_a_precision_with_other_labels_is_not_chosen_on_a_card(request_of) -> None:
    options = CardLoader(RATES, {"fp16": 2 * TOLERANCE}).options
    config = try_candidates(replace(request_of(batch_size="auto"), device=GPU), options)
    assert (config.engine, config.precision) == ("onnxruntime", "tf32")


def test_a_batch_that_the_card_has_no_room_for_ends_the_search(request_of) -> None:
    config = try_candidates(replace(request_of(batch_size="auto"), device=GPU), CardLoader(RATES, most=128).options)
    assert (config.precision, config.batch_size) == ("fp16", 64)


def test_no_candidate_on_a_card_is_an_error_not_paddle(request_of) -> None:
    request = replace(request_of(), device=GPU)
    with pytest.raises(RunError, match="on 'gpu'.*for gpu install onnxruntime-gpu.*mlcls doctor.*--device cpu"):
        try_candidates(request, TrialOptions())
    with pytest.raises(RunError, match="a score differs by"):
        try_candidates(request, CardLoader(RATES, dict.fromkeys(RATES, 2 * TOLERANCE)).options)


def test_a_short_run_on_a_card_is_exact(request_of) -> None:
    config = default_engine("auto", "auto", "", 64, GPU)
    assert (config.engine, config.precision) == ("onnxruntime", "fp32")
    assert default_engine("auto", "auto", "", 64, Device("npu")).engine == "paddle"
    request = request_of()
    assert with_cached_reference(config, request.model).reference == ()
    scores = golden_reference(request.model, 1)
    assert np.allclose(with_cached_reference(config, request.model).reference, scores)
    coarse = config.model_copy(update={"precision": "fp16"})
    assert with_cached_reference(coarse, request.model).reference == (), "what the job names is not refused"


@pytest.mark.parametrize("offset", [2 * TOLERANCE, np.nan])
def test_an_engine_with_wrong_scores_is_rejected(request_of, offset: float) -> None:
    options = Loader(seconds={"openvino": 0.001}, offsets={"openvino": offset}).options
    request = request_of(precision="fp32")
    config = autotune(request, options)
    assert config.engine != "openvino"
    assert trial_of(config, "openvino", "fp32").rejected_because
    assert load_cached(cache_path(request)) == config
    alone = autotune(request_of("openvino"), options)
    assert (alone.engine, alone.precision) == ("paddle", "fp32")
    assert "no candidate gives Paddle's labels" in alone.reason


def test_an_engine_with_other_labels_at_the_thresholds_of_the_run_is_rejected(request_of, tiny_model: Model) -> None:
    """Its scores are within the tolerance, and give the same labels at the model's thresholds, but not at those of the run."""
    scores = load_engine("paddle", tiny_model, CPU, 1).score(golden_pixels(tiny_model))
    assert (np.abs(scores - 0.5) > 0.003).all(), "no score is near the model's own thresholds"
    request = request_of(precision="fp32")
    options = Loader(seconds={"openvino": 0.001}, offsets={"openvino": 0.002}).options
    assert autotune(request, options).engine == "openvino"
    config = autotune(replace(request, thresholds=scores[0] + np.float32(0.001)), options)
    assert "other labels on" in trial_of(config, "openvino", "fp32").rejected_because
    assert config.engine != "openvino"


def test_an_engine_that_is_not_installed_is_rejected(request_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    config = autotune(request_of(), Loader(seconds={"openvino": 0.001}).options)
    assert "needs" in trial_of(config, "openvino", "fp32").rejected_because
    assert config.engine != "openvino"


def test_a_verdict_of_an_older_run_is_read() -> None:
    trial = {"engine": "openvino", "precision": "fp32", "images_per_s": 9.5, "difference": 0.0, "refused": "too far"}
    text = {
        "engine": "paddle",
        "precision": "fp32",
        "reason": "r",
        "trials": [trial],
        "golden": [[0.5]],
        "batch_size": 8,
    }
    config = EngineConfig.model_validate_json(json.dumps(text))
    assert config.trials[0].rejected_because == "too far"
    assert config.reference == ((0.5,),)
    assert EngineConfig.model_validate_json(config.model_dump_json()) == config


def test_a_run_records_what_was_chosen(loopback_ray: None, tiny_folder: Path, tmp_path: Path) -> None:
    images = hard_links(tmp_path / "images", WORTH_ROWS)
    job = LabelJob(inputs=(str(images),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r")
    assert label(job)
    record = json.loads((tmp_path / "out" / layout.run_json("r")).read_text())
    assert [(trial["engine"], trial["precision"]) for trial in record["engine"]["trials"]] == CPU_CANDIDATES
    table = pq.read_table(tmp_path / "out" / layout.labels_folder("r"))
    assert set(table["engine"].to_pylist()) == {record["engine"]["engine"]}
    assert set(table["precision"].to_pylist()) == {record["engine"]["precision"]}

"""Paddle's scores of the golden images in the model cache, and machines without Paddle that are served by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.cli import models
from mlcls_ray.devices import Device
from mlcls_ray.engines.golden import golden_pixels
from mlcls_ray.engines.load import load_engine
from mlcls_ray.engines.reference import cached_reference, golden_reference, prepare, reference_path
from mlcls_ray.models.artifact import Model

CPU = Device("cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def refuse(name: str, model: Model, device: Device, threads: int, precision: str) -> None:
    raise AssertionError("the cache has the scores")


def test_the_scores_are_computed_once(tiny_model: Model) -> None:
    assert cached_reference(tiny_model) is None
    scores = golden_reference(tiny_model, 1)
    expected = load_engine("paddle", tiny_model, CPU, 1).score(golden_pixels(tiny_model))
    assert scores.dtype == np.float32 and np.abs(scores - expected).max() <= 1e-6
    assert np.array_equal(golden_reference(tiny_model, 1, load=refuse), scores)  # type: ignore[arg-type]
    assert np.array_equal(cached_reference(tiny_model), scores)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_made_again(tiny_model: Model, damage: bytes | None) -> None:
    scores = golden_reference(tiny_model, 1)
    path = reference_path(tiny_model)
    path.write_bytes(path.read_bytes()[:-8] if damage is None else damage)
    assert cached_reference(tiny_model) is None
    assert np.array_equal(golden_reference(tiny_model, 1), scores)


def test_other_pixels_have_scores_of_their_own(tiny_model: Model) -> None:
    other = tiny_model.model_copy(update={"preprocess": tiny_model.preprocess.model_copy(update={"scale": 1.0})})
    assert reference_path(other) != reference_path(tiny_model)


def test_a_slow_network_has_four(tiny_model: Model) -> None:
    times = iter([0.0, 10.0])
    assert len(golden_reference(tiny_model, 1, clock=lambda: next(times))) == 4
    assert len(golden_reference(tiny_model, 1)) == 4, "they are enough from then on"


WITHOUT_PADDLE = """
import importlib.metadata, sys
import numpy as np

class NoPaddle:
    "Neither Paddle nor its converter can be imported, nor do they have metadata."
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("paddle", "paddle2onnx"):
            raise ImportError(name)

def from_name(name, found=importlib.metadata.Distribution.from_name):
    if "paddle" in name:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

sys.meta_path.insert(0, NoPaddle())
importlib.metadata.Distribution.from_name = from_name
"""
SCORE = (
    WITHOUT_PADDLE
    + """
from pathlib import Path
import mlcls_ray.job.workers, mlcls_ray.job.pipeline, mlcls_ray.job.plan
from mlcls_ray.config import LabelJob
from mlcls_ray.cli import models
from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import TrialRequest, resolve_engine
from mlcls_ray.models.artifact import load_model
from mlcls_ray.stages.score import Score
from mlcls_ray.stages.spec import ModelSpec, RunSpec, Provenance, model_column, pixels_column
from mlcls_ray.engines.golden import golden_pixels

folder = sys.argv[1]
class Source:
    def open(self, s3):
        return load_model(Path(folder))

model = Source().open(None)
request = TrialRequest(engine="onnxruntime", precision="auto", model=model, thresholds=np.array(model.thresholds, np.float32),
                       device=Device("cpu"), threads=1, batch_size=4)
config = resolve_engine(request)
assert len(config.reference) == 12 and not config.trials[0].rejected_because, config
assert mlcls_ray.job.plan._versions(mlcls_ray.job.plan.PACKAGES).keys() >= {"ray", "numpy"}
provenance = Provenance("tiny", "f", "p", config.engine, config.precision, "0.5", "run")
spec = ModelSpec(Source(), model.preprocess, model.vocabulary, request.thresholds, config, provenance, "")
stage = Score(RunSpec(job=LabelJob(inputs=("x",), out="y"), run_id="run", rows=12, models=(spec,)))
status = np.array(["ok"] * 12, object)
batch = stage({pixels_column(model.preprocess): golden_pixels(model), "status": status, "error_message": np.array([""] * 12, object)})
print(batch[model_column("tiny")].field("status").to_pylist())
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("paddle", "paddle2onnx")))
"""
)


def test_a_scoring_worker_needs_no_paddle(tiny_model: Model, tiny_folder: Path) -> None:
    """With the cache of a machine that has it, a worker on ONNX Runtime is chosen, checked and scores."""
    prepare(tiny_model)
    done = subprocess.run([sys.executable, "-c", SCORE, str(tiny_folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(["ok"] * 12), "[]"]


def test_without_paddle_and_without_a_filled_cache(tiny_folder: Path) -> None:
    code = (
        WITHOUT_PADDLE
        + """
from pathlib import Path
from mlcls_ray.engines.reference import golden_reference
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.convert.onnx import cached_onnx
model = load_model(Path(sys.argv[1]))
for attempt in (lambda: golden_reference(model, 1), lambda: cached_onnx(model)):
    try:
        attempt()
    except UsageError as error:
        print(error)
"""
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "needs Paddle" in first and "mlcls models prepare" in first
    assert "needs Paddle, paddle2onnx" in second


def test_the_command_fills_the_cache(
    tiny_model: Model, tiny_folder: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models.prepare(str(tiny_folder))
    printed = {Path(line).name for line in capsys.readouterr().out.splitlines() if line.startswith("/")}
    assert printed == {path.name for path in (home / "converted").iterdir() if not path.name.startswith(".")}
    assert len(printed) == 4
    assert cached_reference(tiny_model) is not None

"""Each engine gives Paddle's scores, and says what it cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.engines.base import score_batches
from mlcls_ray.engines.load import engine_spec, load_engine
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.zoo import STARTER_FOLDER
from mlcls_ray.registry import EMBEDDING_ENGINES, ENGINES, load

CPU = Device("cpu")


@pytest.fixture(scope="module")
def pixels(demo: Path) -> np.ndarray:
    return load_model(STARTER_FOLDER).load_pixels(sorted(demo.glob("*.jpg")))


@pytest.fixture(scope="module")
def expected(pixels: np.ndarray) -> np.ndarray:
    return load_engine("paddle", load_model(STARTER_FOLDER), CPU, 2).score(pixels)


@pytest.mark.parametrize(
    ("name", "precision", "tolerance"),
    [("openvino", "fp32", 1e-3), ("onnxruntime", "fp32", 1e-3), ("openvino", "bf16", 0.1), ("paddle", "bf16", 0.1)],
)
def test_scores_agree_with_paddles(
    pixels: np.ndarray, expected: np.ndarray, name: str, precision: str, tolerance: float
) -> None:
    engine = load_engine(name, load_model(STARTER_FOLDER), CPU, 2, precision)  # type: ignore[arg-type]
    assert (engine.name, engine.precision) == (name, precision)
    engine.warm_up(4)
    actual = score_batches(engine, pixels, 5)
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() <= tolerance
    assert np.array_equal(engine.score(pixels[:1]), engine.score(pixels[:1]))


def test_a_short_batch_gives_the_same_scores(pixels: np.ndarray) -> None:
    engine = load_engine("openvino", load_model(STARTER_FOLDER), CPU, 2)
    full = engine.score(pixels[:6])
    assert np.abs(engine.score(pixels[:2]) - full[:2]).max() <= 1e-6
    assert engine.score(pixels[:2]).shape == (2, 80)


def test_it_is_converted_once_by_many(tmp_path: Path, tiny_folder: Path) -> None:
    code = f"""
from pathlib import Path
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.convert.onnx import cached_onnx
path = cached_onnx(load_model(Path({str(tiny_folder)!r})))
print(path, path.stat().st_ino)
"""
    home = tmp_path / "home"
    env = {**os.environ, "MLCLS_HOME": str(home)}
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) for _ in range(3)]
    assert len({process.communicate()[0].splitlines()[-1] for process in running}) == 1
    assert [path.suffix for path in (home / "converted").iterdir() if not path.name.startswith(".")] == [".onnx"]


READ_SPECS = """
import sys
from mlcls_ray.engines.load import engine_spec
from mlcls_ray.registry import ENGINES
print(*[name for name in ENGINES if engine_spec(name).packages])
print(*[name for name in ("paddle", "openvino", "onnxruntime", "tensorrt", "ray") if name in sys.modules])
"""


def test_reading_what_engines_say_of_themselves_loads_no_library() -> None:
    done = subprocess.run([sys.executable, "-c", READ_SPECS], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["paddle openvino onnxruntime tensorrt", ""]


@pytest.mark.parametrize("name", ENGINES)
def test_every_registered_engine_keeps_to_the_protocol(name: str) -> None:
    engine_class = load(ENGINES[name])
    assert engine_class.name == name
    assert set(engine_spec(name).candidates) <= set(DEVICE_KINDS)
    for member in ("warm_up", "score", *(["embed"] if name in EMBEDDING_ENGINES else [])):
        assert callable(getattr(engine_class, member))


def test_what_an_engine_cannot_do(tiny_model: Model) -> None:
    with pytest.raises(UsageError, match="openvino runs on cpu, not on 'gpu'"):
        load_engine("openvino", tiny_model, Device("gpu"), 1)
    with pytest.raises(UsageError, match="cannot run on 'npu'"):
        load_engine("onnxruntime", tiny_model, Device("npu"), 1)
    with pytest.raises(UsageError, match="no precision 'bf16': use fp32"):
        load_engine("onnxruntime", tiny_model, CPU, 1, "bf16")
    with pytest.raises(UsageError, match="no precision 'bf16' on 'gpu'"):
        load_engine("paddle", tiny_model, Device("gpu"), 1, "bf16")
    with pytest.raises(UsageError, match="no precision 'fp16' on 'cpu'"):
        load_engine("paddle", tiny_model, CPU, 1, "fp16")
    with pytest.raises(UsageError, match="cannot run on 'gpu' in fp16; for gpu install onnxruntime-gpu"):
        load_engine("onnxruntime", tiny_model, Device("gpu"), 1, "fp16")
    with pytest.raises(UsageError, match="tensorrt runs on gpu, not on 'cpu'"):
        load_engine("tensorrt", tiny_model, CPU, 1, "fp16")
    with pytest.raises(UsageError, match="tensorrt has no precision 'bf16'"):
        load_engine("tensorrt", tiny_model, Device("gpu"), 1, "bf16")
    with pytest.raises(UsageError, match="install paddlepaddle-gpu"):
        load_engine("tensorrt", tiny_model, Device("gpu"), 1, "fp16")

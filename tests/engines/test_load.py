"""Each engine gives Paddle's scores; what it cannot do it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.devices import Device
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.convert.onnx import converted
from mlcls_ray.models.zoo import STARTER_FOLDER

CPU = Device("cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def pixels(demo: Path) -> np.ndarray:
    preprocess = load_model(STARTER_FOLDER).preprocess
    return np.stack([preprocess.to_pixels(decode(path.read_bytes()).image) for path in sorted(demo.glob("*.jpg"))])


@pytest.fixture(scope="module")
def told(pixels: np.ndarray) -> np.ndarray:
    return load_engine("paddle", load_model(STARTER_FOLDER), CPU, 2).score(pixels)


@pytest.mark.parametrize(
    ("name", "precision", "tolerance"),
    [("openvino", "fp32", 1e-3), ("onnxruntime", "fp32", 1e-3), ("openvino", "bf16", 0.1), ("paddle", "bf16", 0.1)],
)
def test_scores_agree_with_paddles(
    home: Path, pixels: np.ndarray, told: np.ndarray, name: str, precision: str, tolerance: float
) -> None:
    engine = load_engine(name, load_model(STARTER_FOLDER), CPU, 2, precision)  # type: ignore[arg-type]
    assert (engine.name, engine.precision) == (name, precision)
    engine.warm_up(4)
    found = np.concatenate([engine.score(pixels[start : start + 5]) for start in range(0, len(pixels), 5)])
    assert found.dtype == np.float32
    assert np.abs(found - told).max() <= tolerance
    assert np.array_equal(engine.score(pixels[:1]), engine.score(pixels[:1]))


def test_a_short_batch_gives_the_same_scores(home: Path, pixels: np.ndarray) -> None:
    engine = load_engine("openvino", load_model(STARTER_FOLDER), CPU, 2)
    full = engine.score(pixels[:6])
    assert np.abs(engine.score(pixels[:2]) - full[:2]).max() <= 1e-6
    assert engine.score(pixels[:2]).shape == (2, 80)


def test_it_is_converted_once_by_many(home: Path, tiny_folder: Path) -> None:
    code = f"""
from pathlib import Path
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.convert.onnx import converted
path = converted(load_model(Path({str(tiny_folder)!r})))
print(path, path.stat().st_ino)
"""
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)]
    assert len({process.communicate()[0].splitlines()[-1] for process in running}) == 1
    assert [path.suffix for path in (home / "converted").iterdir() if not path.name.startswith(".")] == [".onnx"]


def test_a_conversion_that_died_leaves_nothing(home: Path, tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlcls_ray.models.convert.onnx.os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        converted(tiny_model)
    monkeypatch.undo()
    monkeypatch.setenv("MLCLS_HOME", str(home))
    assert [path.name for path in (home / "converted").iterdir() if not path.name.startswith(".")] == []
    assert converted(tiny_model).is_file()


def test_what_an_engine_cannot_do(home: Path, tiny_model: Model) -> None:
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

"""Paddle Inference: shapes, batch independence, old and broken programs, and configurations by device."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.devices import Device, parse_device
from mlcls_ray.engines.load import load_engine
from mlcls_ray.engines.paddle import make_config
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.images.preprocess import Preprocess, normalize
from mlcls_ray.models.artifact import Model, load_model


def test_scores_do_not_depend_on_the_batch(tiny_model: Model) -> None:
    engine = load_engine("paddle", tiny_model, parse_device("cpu"), 1)
    engine.warm_up(4)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    together = engine.score(pixels)
    assert (together.shape, together.dtype) == ((7, 3), np.float32)
    assert ((together > 0) & (together < 1)).all()
    alone = np.concatenate([engine.score(pixels[number : number + 1]) for number in range(7)])
    assert np.abs(alone - together).max() < 1e-6
    assert (engine.name, engine.precision) == ("paddle", "fp32")


def test_normalising_is_paddlexs() -> None:
    """(v / 255 − mean) / std, to float32's rounding."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    expected = ((pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(0, 3, 1, 2)
    actual = normalize(pixels, Preprocess(size=(5, 4)), np.empty((2, 3, 4, 5), np.float32))
    assert np.abs(actual - expected).max() < 1e-6


def test_a_missing_device_is_an_error(tiny_model: Model) -> None:
    with pytest.raises(UsageError, match="npu"):
        load_engine("paddle", tiny_model, Device("npu"), 1)


def test_a_broken_program_is_one_clear_error(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / "inference.json").write_text("{}")
    with pytest.raises(RunError, match="cannot load"):
        load_engine("paddle", load_model(folder), parse_device("cpu"), 1)


LEGACY = """
import sys, numpy, paddle
paddle.enable_static()
with paddle.pir_utils.OldIrGuard():
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        x = paddle.static.data("x", [None, 3, 32, 32], "float32")
        y = paddle.static.nn.fc(paddle.mean(x, axis=[2, 3]), 3, activation="sigmoid")
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        paddle.static.save_inference_model(sys.argv[1] + "/inference", [x], [y], executor)
    numpy.save(sys.argv[1] + "/scores.npy", executor.run(main, {"x": numpy.load(sys.argv[1] + "/x.npy")}, [y])[0])
"""


def test_the_old_program_format(tiny_folder: Path, tmp_path: Path) -> None:
    """`inference.pdmodel`, as Paddle 2 and PaddleClas write it; made in another process, because it switches Paddle to another mode."""
    shutil.copy(tiny_folder / "inference.yml", tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    tensor = normalize(pixels, Preprocess(size=(32, 32)), np.empty((3, 3, 32, 32), np.float32))
    np.save(tmp_path / "x.npy", tensor)
    subprocess.run([sys.executable, "-c", LEGACY, tmp_path], check=True, capture_output=True)
    model = load_model(tmp_path)
    assert model.program.name == "inference.pdmodel"
    actual = load_engine("paddle", model, parse_device("cpu"), 1).score(pixels)
    assert np.abs(actual - np.load(tmp_path / "scores.npy")).max() < 1e-5


def test_configurations_follow_the_device(tiny_model: Model) -> None:
    """What can be checked without the devices: threads and oneDNN on CPU, and that other kinds do not use the GPU."""
    from paddle import inference

    cpu = make_config(inference, tiny_model, Device("cpu"), threads=3)
    assert (cpu.cpu_math_library_num_threads(), cpu.mkldnn_enabled(), cpu.use_gpu()) == (3, True, False)
    for kind in ("npu", "mlu", "iluvatar_gpu", "metax_gpu"):
        assert not make_config(inference, tiny_model, Device(kind, (1,)), threads=3).use_gpu()

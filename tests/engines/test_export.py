"""`mlcls export`: folders that load, files that other runtimes read, and the same scores."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.export import compare_scores, export_checkpoint, export_model, export_untrained
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.build import build_network
from mlcls_ray.models.convert.lite import PYTHON_VARIABLE
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.zoo import PUBLISHED
from tests.conftest import run_cli

FILES = {
    "paddle": ["inference.json", "inference.pdiparams", "inference.yml", "thresholds.yml"],
    "onnx": ["inference.onnx", "inference.yml", "thresholds.yml"],
    "openvino": ["inference.bin", "inference.xml", "inference.yml", "thresholds.yml"],
}


@pytest.fixture
def cat(demo: Path) -> np.ndarray:
    return decode((demo / "cat.jpg").read_bytes()).image


@pytest.mark.parametrize(
    "kind", ["paddle", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("onnx", "openvino"))]
)
def test_the_starter(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    done = run_cli("export", "starter", "--format", kind, "--out", out)
    assert "over 12 images" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == FILES[kind]
    with pytest.raises(UsageError, match="exists already"):
        export_model("starter", kind, out)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "PP-LCNet_x1_0_ML" else pytest.mark.slow) for name in PUBLISHED]
)
def test_each_network_in_each_format(tmp_path: Path, cat: np.ndarray, name: str) -> None:
    """The weights are random: the converters must cope with the structure."""
    folder = export_untrained(name, tmp_path / "paddle", seed=3)
    model = load_model(folder)
    assert (model.name, model.preprocess.size, len(model.vocabulary)) == (name, (448, 448), 80)
    for kind in ("onnx", "openvino"):
        done = export_model(str(folder), kind, tmp_path / kind, images=[cat])  # type: ignore[arg-type]
        print(name, kind, f"{done.difference:.1e}")
        assert done.difference <= 1e-3


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    first = export_untrained("PP-LCNet_x1_0_ML", tmp_path / "a", seed=5, input_size=64)
    second = export_untrained("PP-LCNet_x1_0_ML", tmp_path / "b", seed=5, input_size=64)
    third = export_untrained("PP-LCNet_x1_0_ML", tmp_path / "c", seed=6, input_size=64)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    scores, same, different = (
        load_engine("paddle", load_model(folder), parse_device("cpu"), 1).score(pixels)
        for folder in (first, second, third)
    )
    assert np.array_equal(scores, same)
    assert not np.allclose(scores, different)


def test_trained_weights(tmp_path: Path, demo: Path) -> None:
    """A `.pdparams` file with other classes than COCO's, as PaddleX's training writes it."""
    labels = tmp_path / "label.txt"
    labels.write_text("0 cat\n1 potted plant\n2 猫\n")
    network = build_network(network_spec("PP-LCNet_x1_0_ML"), 3, seed=4)
    weights = tmp_path / "PP-LCNet_x1_0_ML_best.pdparams"
    paddle.save(network.state_dict(), str(weights))
    done = run_cli("export", weights, "--label-list", labels, "--out", tmp_path / "out", "--images", demo / "cat.jpg")
    assert "largest difference of a score" in done.stdout
    model = load_model(tmp_path / "out")
    assert (model.name, model.vocabulary) == ("PP-LCNet_x1_0_ML", ("cat", "potted plant", "猫"))
    with pytest.raises(
        UsageError, match=r"group_conv.bias is \[3\], the network's is \[80\]|are of another network|is \[3"
    ):
        export_checkpoint(weights, tmp_path / "coco")
    other = weights.rename(tmp_path / "best_model.pdparams")
    with pytest.raises(UsageError, match="give --network"):
        export_checkpoint(other, tmp_path / "coco")


def test_paddle_lite_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(UsageError, match="pip install paddlelite==2.13rc0"):
        export_model("starter", "paddle-lite", tmp_path / "out")


@pytest.fixture(scope="session")
def lite_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python 3.10 with Paddle Lite, installed where that interpreter is there."""
    if PYTHON_VARIABLE in os.environ:
        return Path(os.environ[PYTHON_VARIABLE])
    interpreter = shutil.which("python3.10")
    if interpreter is None or subprocess.run([interpreter, "-m", "venv", "--help"], capture_output=True).returncode:
        pytest.skip("Paddle Lite has no wheel for other versions than Python 3.10, which is not here")
    folder = tmp_path_factory.mktemp("lite") / "venv"
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    packages = ["paddlelite==2.13rc0", "paddlepaddle==2.6.2", "numpy<2", "setuptools"]
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", *packages], check=True)
    return folder / "bin/python"


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_paddle_lite(
    tmp_path: Path, lite_python: Path, monkeypatch: pytest.MonkeyPatch, cat: np.ndarray, name: str
) -> None:
    """The file is for ARM; the x86 build of the same program is compared."""
    monkeypatch.setenv(PYTHON_VARIABLE, str(lite_python))
    folder = export_untrained(name, tmp_path / "paddle", seed=3)
    if name.startswith("CLIP"):  # paddle_lite_opt aborts, and names no operator
        with pytest.raises(RunError, match="Paddle Lite cannot convert it"):
            export_model(str(folder), "paddle-lite", tmp_path / "lite", images=[cat])
        return
    done = export_model(str(folder), "paddle-lite", tmp_path / "lite", images=[cat])
    print(name, "paddle-lite", f"{done.difference:.1e}")
    assert sorted(path.name for path in (tmp_path / "lite").iterdir()) == ["inference.nb", "inference.yml"]


def test_other_scores_are_refused(tmp_path: Path) -> None:
    scores = np.full((2, 3), 0.5, np.float32)
    assert compare_scores(scores, scores + np.float32(1e-4), tmp_path).images == 2
    with pytest.raises(RunError, match="scores differ from Paddle's by 0.01"):
        compare_scores(scores, scores + np.float32(0.01), tmp_path)
    with pytest.raises(RunError, match="scores differ from Paddle's by nan"):
        compare_scores(scores, scores * np.nan, tmp_path)


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    (tmp_path / "PP-LCNet_x1_0_ML.pdparams").write_bytes(b"no weights")
    words = (
        "export",
        tmp_path / "PP-LCNet_x1_0_ML.pdparams",
        "--label-list",
        tmp_path / "labels.txt",
        "--format",
        "onnx",
    )
    run_cli(*words, "--out", tmp_path / "out", check=2)
    with pytest.raises(UsageError, match="no image to compare"):
        export_model("starter", "onnx", tmp_path / "out", images=[])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["PP-LCNet_x1_0_ML.pdparams", "labels.txt"]


def test_no_image_to_compare_on(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    words = ("export", "starter", "--out", tmp_path / "out", "--images", tmp_path / "text.jpg")
    assert "no image to compare the scores on: give --images" in run_cli(*words, check=2).stderr


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown network 'PP-LCNet'"):
        export_untrained("PP-LCNet", tmp_path / "x")

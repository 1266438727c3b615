"""`mlcls export`: folders that load, files that other runtimes read, and scores that are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.engines.device import parse_device
from mlcls_ray.engines.selection import load_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.exporting import export_model, export_untrained
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.build import NETWORKS
from tests.conftest import run_cli

FILES = {
    "paddle": ["inference.json", "inference.pdiparams", "inference.yml"],
    "onnx": ["inference.onnx", "inference.yml"],
    "openvino": ["inference.bin", "inference.xml", "inference.yml"],
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("kind", FILES)
def test_the_starter(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    done = run_cli("export", "starter", "--format", kind, "--out", out)
    assert "over 12 images" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == FILES[kind]
    with pytest.raises(UsageError, match="exists already"):
        export_model("starter", kind, out)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "PP-LCNet_x1_0_ML" else pytest.mark.slow) for name in NETWORKS]
)
def test_each_network_in_each_format(tmp_path: Path, name: str) -> None:
    """Random weights: what is checked is the structure's way through the converters."""
    folder = export_untrained(name, tmp_path / "paddle", seed=3)
    model = load_model(folder)
    assert (model.name, model.preprocess.size, len(model.vocabulary)) == (name, (448, 448), 80)
    for kind in ("onnx", "openvino"):
        done = export_model(
            str(folder), kind, tmp_path / kind, images=[str(Path(__file__).parent.parent / "mlcls_ray/demo/cat.jpg")]
        )  # type: ignore[arg-type]
        print(name, kind, f"{done.difference:.1e}")
        assert done.difference <= 1e-3


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    first = export_untrained("PP-LCNet_x1_0_ML", tmp_path / "a", seed=5, input_size=64)
    second = export_untrained("PP-LCNet_x1_0_ML", tmp_path / "b", seed=5, input_size=64)
    third = export_untrained("PP-LCNet_x1_0_ML", tmp_path / "c", seed=6, input_size=64)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    one, same, other = (
        load_engine("paddle", load_model(folder), parse_device("cpu"), 1).score(pixels)
        for folder in (first, second, third)
    )
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)


def test_other_scores_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcls_ray.engines.onnx_runtime import OnnxRuntimeEngine

    score = OnnxRuntimeEngine.score
    monkeypatch.setattr(OnnxRuntimeEngine, "score", lambda self, pixels: np.clip(score(self, pixels) + 0.01, 0, 1))
    with pytest.raises(RunError, match="scores differ from Paddle's by 0.01"):
        export_model("starter", "onnx", tmp_path / "out")


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown network 'PP-LCNet'"):
        export_untrained("PP-LCNet", tmp_path / "x")

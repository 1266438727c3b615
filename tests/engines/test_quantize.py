"""`mlcls quantize`: int8 by NNCF, measured on a validation list, and refused if it costs too much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.devices import Device
from mlcls_ray.engines.export import export_untrained
from mlcls_ray.engines.golden import golden_pixels
from mlcls_ray.engines.load import load_engine
from mlcls_ray.engines.quantize import quantize_model
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.cache import open_model, open_shipped, ship
from tests.conftest import run_cli

CPU = Device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("untrained") / "model"
    return load_model(export_untrained("PP-LCNet_x1_0_ML", folder, seed=1, input_size=96))


@pytest.fixture
def photographs(demo: Path) -> list[Path]:
    return sorted(demo.glob("*.jpg"))


TARGETS = np.eye(80, dtype=np.float32)[np.arange(12) % 4]
"""Labels that an untrained network cannot know: the tests are about the procedure, not about mAP."""


def test_an_int8_graph_beside_the_model(tmp_path: Path, model: Model, photographs: list[Path]) -> None:
    done = quantize_model(model, photographs, photographs, TARGETS, tmp_path / "int8", max_loss=100)
    assert done.images == 12
    quantized = load_model(tmp_path / "int8")
    assert model.fingerprint != quantized.fingerprint
    pixels = golden_pixels(quantized)
    expected = load_engine("openvino", quantized, CPU, 1).score(pixels)
    actual = load_engine("openvino", quantized, CPU, 1, "int8").score(pixels)
    assert 0 < np.abs(actual - expected).max() < 0.1
    shipped = open_shipped(quantized.fingerprint, ship(quantized))
    assert shipped.fingerprint == quantized.fingerprint
    with pytest.raises(UsageError, match="make one by mlcls quantize"):
        load_engine("openvino", model, CPU, 1, "int8")


def test_too_large_a_loss_is_refused(tmp_path: Path, model: Model, photographs: list[Path]) -> None:
    with pytest.raises(RunError, match="int8 costs .* points of mAP"):
        quantize_model(model, photographs, photographs, TARGETS, tmp_path / "int8", max_loss=-100)
    assert not (tmp_path / "int8").exists()


def test_the_command_names_a_missing_list(tmp_path: Path) -> None:
    done = run_cli("quantize", "starter", "--data", tmp_path, "--out", tmp_path / "int8", check=2)
    assert "has no train.txt" in done.stderr


@pytest.mark.slow
def test_the_starter(shared_data: Path, tmp_path: Path) -> None:
    model = open_model("starter")
    train, dev = (
        read_dataset(shared_data / "coco_mini" / name, len(model.vocabulary)) for name in ("train.txt", "dev.txt")
    )
    done = quantize_model(model, train.paths, dev.paths, dev.targets, tmp_path / "int8")
    print(f"mAP {done.before:.2f} → {done.after:.2f}")
    assert done.before - done.after <= 1.0


def test_the_command_names_classes_that_are_not_the_models(tmp_path: Path) -> None:
    (tmp_path / "label.txt").write_text("person\ncar\ndining table\n")
    for name in ("train.txt", "dev.txt"):
        (tmp_path / name).write_text("a.jpg\t0,1,0\n")
    done = run_cli("quantize", "starter", "--data", tmp_path, "--out", tmp_path / "int8", check=2)
    assert "names 3 classes (person, car, dining table …), which are not the 80 of model" in done.stderr

"""`mlcls quantize`: int8 by NNCF, judged on a validation list, refused where it costs too much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlcls_ray.models.convert.export import export_untrained

from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import golden_pixels
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.cache import open_shipped, ship
from mlcls_ray.models.convert.int8 import quantize_model

CPU = Device("cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path / "home"))


@pytest.fixture
def data(demo: Path, tmp_path: Path) -> Path:
    """The demo photographs with labels that an untrained network cannot know: what is tested is the way, not the loss."""
    folder = tmp_path / "data"
    folder.mkdir()
    vectors = np.eye(80, dtype=int)[np.arange(12) % 4]
    lines = [
        f"{path}\t{','.join(map(str, vector))}"
        for path, vector in zip(sorted(demo.glob("*.jpg")), vectors, strict=True)
    ]
    for name in ("train.txt", "dev.txt"):
        (folder / name).write_text("\n".join(lines))
    return folder


def test_an_int8_graph_beside_the_model(tmp_path: Path, data: Path) -> None:
    source = export_untrained("PP-LCNet_x1_0_ML", tmp_path / "model", seed=1, input_size=96)
    done = quantize_model(str(source), data, tmp_path / "int8", max_loss=100)
    assert done.images == 12
    before, after = load_model(source), load_model(tmp_path / "int8")
    assert before.fingerprint != after.fingerprint
    pixels = golden_pixels(after)
    told = load_engine("openvino", after, CPU, 1).score(pixels)
    found = load_engine("openvino", after, CPU, 1, "int8").score(pixels)
    assert 0 < np.abs(found - told).max() < 0.1
    shipped = open_shipped(after.fingerprint, ship(after))
    assert shipped.fingerprint == after.fingerprint
    with pytest.raises(UsageError, match="make one by mlcls quantize"):
        load_engine("openvino", before, CPU, 1, "int8")


def test_too_much_lost_is_refused(tmp_path: Path, data: Path) -> None:
    source = export_untrained("PP-LCNet_x1_0_ML", tmp_path / "model", seed=1, input_size=96)
    with pytest.raises(RunError, match="int8 costs .* points of mAP"):
        quantize_model(str(source), data, tmp_path / "int8", max_loss=-100)
    assert not (tmp_path / "int8").exists()
    with pytest.raises(UsageError, match=r"has no train\.txt"):
        quantize_model(str(source), tmp_path, tmp_path / "int8")


@pytest.mark.slow
def test_the_starter(shared_data: Path, tmp_path: Path) -> None:
    done = quantize_model("starter", shared_data / "coco_mini", tmp_path / "int8")
    print(f"mAP {done.before:.2f} → {done.after:.2f}")
    assert done.before - done.after <= 1.0

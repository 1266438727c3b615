"""Paddle Inference: shapes, batch independence, and files that are not what they seem."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.engines.device import Device, parse_device
from mlcls_ray.engines.paddle_inference import normalize
from mlcls_ray.engines.selection import load_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.images.preprocess import Preprocess
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
    found = normalize(pixels, Preprocess(size=(5, 4)), np.empty((2, 3, 4, 5), np.float32))
    assert np.abs(found - expected).max() < 1e-6


def test_a_missing_device_is_an_error(tiny_model: Model) -> None:
    with pytest.raises(UsageError, match="npu"):
        load_engine("paddle", tiny_model, Device("npu"), 1)


def test_a_broken_program_is_one_clear_error(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / "inference.json").write_text("{}")
    with pytest.raises(RunError, match="cannot load"):
        load_engine("paddle", load_model(folder), parse_device("cpu"), 1)

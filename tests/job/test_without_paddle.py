"""A whole job on a machine without Paddle: no process of it imports Paddle or asks for its metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlcls_ray.engines.reference import prepare
from mlcls_ray.models.artifact import Model
from mlcls_ray.table import layout
from tests.conftest import hard_links, run_installed
from tests.engines.test_reference import WITHOUT_PADDLE


@pytest.mark.slow
def test_a_job_with_a_filled_cache(tiny_model: Model, tiny_folder: Path, tmp_path: Path) -> None:
    """More images than are too few for trials, so that the engine is chosen and each worker checks itself."""
    prepare(tiny_model)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHOUT_PADDLE)
    images = hard_links(tmp_path / "images", 2100)
    words = ("--model", tiny_folder, "--engine", "onnxruntime", "--run-id", "r", "--embeddings")
    run_installed(
        "label", images, "--out", tmp_path / "out", *words, env={"PYTHONPATH": f"{site}{os.pathsep}{Path.cwd()}"}
    )
    record = json.loads((tmp_path / "out" / layout.run_json("r")).read_text())
    assert "paddlepaddle" not in record["versions"] and "onnxruntime" in record["versions"]
    assert len(record["engine"]["reference"]) == 12
    assert record["engine"]["trials"][0]["engine"] == "onnxruntime"

"""Conversion on a machine that lacks packages: as `pip install mlcls-ray` leaves it, without ONNX Runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

CONVERT = """
import sys
from pathlib import Path
from mlcls_ray.devices import Device
from mlcls_ray.engines.golden import golden_pixels
from mlcls_ray.engines.load import load_engine
from mlcls_ray.models.artifact import load_model
model = load_model(Path(sys.argv[1]))
pixels = golden_pixels(model, 0, 2)
scores = [load_engine(name, model, Device("cpu"), 1).score(pixels) for name in ("openvino", "paddle")]
print(abs(scores[0] - scores[1]).max() < 1e-4)
"""


def test_a_conversion_needs_no_onnxruntime_and_installs_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """paddle2onnx tells its helper to install what is missing: sympy, and with it onnxruntime, which would overwrite onnxruntime-gpu."""
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    for name in ("onnxruntime", "sympy"):
        (lacking / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n")
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "installed"}\n')
    pip.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, tiny_folder],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(lacking), str(ROOT)]),
            "POLYGRAPHY_INSTALL_CMD": str(pip),
            "MLCLS_HOME": str(tmp_path / "home"),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr[-2000:]
    assert not (tmp_path / "installed").exists()

"""Stand-ins for devices that Paddle reaches through a plug-in (NPU, MLU …): real plug-ins, compiled here, on the host's memory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import paddle
import pytest

from mlcls_ray.devices import DEVICE_KINDS

KINDS = tuple(name for name, kind in DEVICE_KINDS.items() if kind.is_plugin)
SOURCE = Path(__file__).with_name("stand_in_device.cc")
GCU_PASSES = "def setUp():\n    pass\n"
"""The Python part of the GCU's plug-in, which registers its passes."""


def build(folder: Path) -> dict[str, str]:
    """Compile a plug-in with two devices for each kind; returns the environment in which Paddle finds them.

    Skips the test where there is no compiler, or where this Paddle was built without custom devices.
    """
    compiler = shutil.which("g++")
    header = Path(paddle.sysconfig.get_include()) / "paddle/phi/backends/custom/fake_cpu_device.h"
    if compiler is None:
        pytest.skip("needs g++ to compile a plug-in for Paddle")
    if not header.is_file():
        pytest.skip("needs a Paddle that was built with custom devices")
    compilers = [
        subprocess.Popen([compiler, *options(kind), "-o", folder / f"libstand-in-{kind}.so"]) for kind in KINDS
    ]
    assert [process.wait(timeout=120) for process in compilers] == [0] * len(KINDS)
    passes = folder / "paddle_custom_device" / "gcu" / "passes.py"
    passes.parent.mkdir(parents=True)
    passes.write_text(GCU_PASSES)
    return {"CUSTOM_DEVICE_ROOT": str(folder), "PYTHONPATH": str(folder)}


def options(kind: str) -> list[str | Path]:
    """Options of g++ for the plug-in of a kind."""
    macros = [f'-DDEVICE_KIND="{kind}"', f'-DVISIBLE_DEVICES="{DEVICE_KINDS[kind].visible_devices}"']
    # Each plug-in calls its own functions, not those of the same name in the plug-in that was loaded before.
    linking = ["-shared", "-fPIC", "-Wl,-Bsymbolic"]
    return ["-std=c++17", "-w", *linking, *macros, "-I", paddle.sysconfig.get_include(), SOURCE]

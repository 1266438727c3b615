"""Paddle programs → ONNX and OpenVINO IR. What engines need is converted once per machine, into the cache."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from mlcls_ray.errors import MESSAGE_LIMIT, RunError, UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home, once
from mlcls_ray.models.zoo import STARTER_FOLDER

OPSET = 17
PROGRAM = "mlcls_ray.models.convert.onnx_program"
ONNX, OPENVINO = "inference.onnx", "inference.xml"
MISSING = (
    "needs Paddle, paddle2onnx, onnx, onnx-graphsurgeon and openvino, which are installed with mlcls-ray on x86-64 only; "
    "`mlcls doctor` says what is missing"
)

MISSING_RUNTIME = (
    "needs ONNX Runtime: pip install 'mlcls-ray[cpu]', or on a machine with an NVIDIA card pip install 'mlcls-ray[gpu]'"
)


def onnx_graph(model: Model) -> Path:
    """Find the graph that an engine reads: the one that the model is shipped with, whose weights are in its own file, or `cached_onnx`.

    Raises:
        UsageError, RunError: as `to_onnx`.
    """
    return shipped_onnx(model) or cached_onnx(model)


def shipped_onnx(model: Model) -> Path | None:
    """Find the ONNX graph in the model's folder. Only the starter has one, and its weights are bytes of `inference.pdiparams`."""
    return model.folder / ONNX if model.folder == STARTER_FOLDER else None


def has_onnx(model: Model) -> bool:
    """Tell whether this machine has the graph, so that an engine can read it without a conversion, which takes seconds."""
    return shipped_onnx(model) is not None or _cache_path(model).is_file()


def cached_onnx(model: Model) -> Path:
    """Convert a model to ONNX, weights and all, in this machine's cache, keyed by its fingerprint.

    Raises:
        UsageError, RunError: as `to_onnx`.
    """
    return once(_cache_path(model), lambda path: to_onnx(model, path))


def _cache_path(model: Model) -> Path:
    return home() / "converted" / f"{model.fingerprint[:32]}.onnx"


def to_onnx(model: Model, path: Path) -> None:
    """Write a model as ONNX; its input stays `x`, float32 [N, 3, H, W].

    In a process of its own: paddle2onnx ends the process that calls it where a program has an operator that it does not know.

    Raises:
        UsageError: paddle2onnx is not installed.
        RunError: paddle2onnx cannot convert the program.
    """
    if not all(map(_is_installed, ("paddle", "paddle2onnx", "polygraphy", "onnx"))):
        raise UsageError(f"ONNX {MISSING}")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", PROGRAM, str(model.program), str(model.parameters), str(path), str(OPSET)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode or not path.is_file():
        raise RunError(f"model '{model.name}': paddle2onnx cannot convert it: {_reason(done.stdout + done.stderr)}")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # a finder that refuses it
        return False


def _reason(output: str) -> str:
    """Find the line of paddle2onnx's output that says why, preferably the one with the names of the operators."""
    lines = [line.strip().removeprefix("[ERROR]").removeprefix("[Paddle2ONNX]").strip() for line in output.splitlines()]
    for pattern in (r"not supported yet|unsupported", r"\bError\b.*:", r"."):
        found = next((line for line in lines if re.search(pattern, line)), None)
        if found:
            return found[:MESSAGE_LIMIT]
    return "no message"


def to_openvino(onnx: Path, path: Path) -> None:
    """Write an ONNX model as OpenVINO IR in fp32: an .xml file and a .bin beside it.

    Raises:
        UsageError: openvino is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise UsageError(f"OpenVINO {MISSING}") from None
    openvino.save_model(openvino.convert_model(str(onnx)), str(path), compress_to_fp16=False)

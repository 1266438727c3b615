"""Models for Paddle Lite (edge devices): made by a second Python, because Paddle Lite needs Paddle's old program format."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import paddle

from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.build import build_network

PYTHON_VARIABLE = "MLCLS_LITE_PYTHON"
LITE = "inference.nb"
NUMBERED = re.compile(r'"([a-z_0-9]+_\d+\.[a-z]+_\d+)"')
TIMEOUT_S = 900
HOW_TO = (
    f"format paddle-lite: set {PYTHON_VARIABLE} to a Python 3.10 that has Paddle Lite, made by: python3.10 -m venv lite; "
    'lite/bin/pip install paddlelite==2.13rc0 paddlepaddle==2.6.2 "numpy<2" setuptools; export MLCLS_LITE_PYTHON=$PWD/lite/bin/python'
)


def to_paddle_lite(model: Model, path: Path, tensors: np.ndarray) -> np.ndarray:
    """Write one of the known networks as `.nb` for ARM; returns Paddle Lite's scores of float32 [N, 3, S, S], from its x86 build.

    Raises:
        UsageError: there is no Python with Paddle Lite, or the model is none of the known networks.
        RunError: Paddle Lite cannot convert or run it.
    """
    python = os.environ.get(PYTHON_VARIABLE)
    if not python or not Path(python).exists():
        raise UsageError(HOW_TO)
    weights = read_weights(model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.savez(folder / "weights.npz", **weights)  # type: ignore[arg-type]
        np.save(folder / "tensors.npy", tensors)
        job = {
            "folder": temporary,
            "network": model.name,
            "class_num": len(model.vocabulary),
            "input_size": model.preprocess.input_size[0],
        }
        (folder / "job.json").write_text(json.dumps(job))
        done = subprocess.run(  # noqa: S603
            [python, "-m", "mlcls_ray.models.convert.lite_program", str(folder / "job.json")],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode or not (folder / "scores.npy").is_file():
            told = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RunError(f"model '{model.name}': Paddle Lite cannot convert it: {told}")
        shutil.copyfile(folder / "device.nb", path)
        scores: np.ndarray = np.load(folder / "scores.npy")
        return scores


def read_weights(model: Model) -> dict[str, np.ndarray]:
    """A known network's weights, by its parameters' names.

    An inference folder calls them by kind and number (`conv2d_12.w_0`) and keeps them in the order of these names; the numbers of each kind
    grow in the order in which the network's layers are made.

    Raises:
        UsageError: the model is none of the known networks, or in Paddle's old program format.
    """
    state = build_network(model.name, len(model.vocabulary)).state_dict()
    given = {name: value.name for name, value in state.items()}
    found = sorted(set(NUMBERED.findall(model.program.read_text(encoding="utf-8", errors="replace"))))
    values = paddle.jit.load(str(model.program.with_suffix(""))).state_dict().values()
    arrays = {key: value.numpy() for key, value in zip(_ranks(found), values, strict=False)}
    keys = dict(zip(given, _ranks(list(given.values())), strict=True))
    if len(found) != len(values) or {key: list(array.shape) for key, array in arrays.items()} != {
        keys[name]: list(value.shape) for name, value in state.items()
    }:
        raise UsageError(
            f"model '{model.folder}' is not the network '{model.name}' that we know: its parameters differ"
        )
    return {name: arrays[keys[name]] for name in state}


def _ranks(names: list[str]) -> list[tuple[str, int, str]]:
    """Kind, the number's rank among those of its kind, and what it is of the layer."""
    parts = [re.fullmatch(r"(.+)_(\d+)\.(\w+)", name) for name in names]
    split = [(part[1], int(part[2]), part[3]) for part in parts if part]
    numbers = {kind: sorted({number for one, number, _ in split if one == kind}) for kind, _, _ in split}
    return [(kind, numbers[kind].index(number), which) for kind, number, which in split]

"""Models for Paddle Lite (edge devices). A second Python makes them, because Paddle Lite needs Paddle's old program format."""

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
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.outdated import adapted

PYTHON_VARIABLE = "MLCLS_LITE_PYTHON"
LITE = "inference.nb"
NUMBERED = re.compile(r'"([a-z_0-9]+_\d+\.[a-z]+_\d+)"')
TIMEOUT_S = 900
HOW_TO = (
    f"format paddle-lite: set {PYTHON_VARIABLE} to a Python 3.10 that has Paddle Lite, made by: python3.10 -m venv lite; "
    'lite/bin/pip install paddlelite==2.13rc0 paddlepaddle==2.6.2 "numpy<2" setuptools; export MLCLS_LITE_PYTHON=$PWD/lite/bin/python'
)


def to_paddle_lite(model: Model, path: Path, tensors: np.ndarray) -> np.ndarray:
    """Write a model of a registered network as `.nb` for ARM.

    Returns Paddle Lite's scores of tensors float32 [N, 3, S, S], from its x86 build: float32 [N, C].

    Raises:
        UsageError: there is no Python with Paddle Lite, or the model is not of a registered network.
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
            "network": model.network,
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
            message = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RunError(f"model '{model.name}': Paddle Lite cannot convert it: {message}")
        shutil.copyfile(folder / "device.nb", path)
        scores: np.ndarray = np.load(folder / "scores.npy")
        return scores


def read_weights(model: Model) -> dict[str, np.ndarray]:
    """Read the weights of a registered network, by the names of its parameters.

    An inference folder names them by kind and number (`conv2d_12.w_0`) and stores them in the order of these names; the numbers of each
    kind grow in the order in which the network's layers are made.

    Raises:
        UsageError: the model is not of a registered network, or in Paddle's old program format.
    """
    spec = network_spec(model.network)
    built = build_network(spec, len(model.vocabulary)).state_dict()
    state = {name: value for name, value in built.items() if name not in spec.unused}
    numbered = {name: value.name for name, value in state.items()}
    stored = sorted(set(NUMBERED.findall(model.program.read_text(encoding="utf-8", errors="replace"))))
    values = paddle.jit.load(str(model.program.with_suffix(""))).state_dict().values()
    arrays = {key: value.numpy() for key, value in zip(_ranks(stored), values, strict=False)}
    keys = dict(zip(numbered, _ranks(list(numbered.values())), strict=True))
    if len(stored) != len(values) or {key: list(array.shape) for key, array in arrays.items()} != {
        keys[name]: list(value.shape) for name, value in state.items()
    }:
        raise UsageError(f"model '{model.folder}' is not the network '{model.network}': its parameters differ")
    return adapted(model, {name: arrays[keys[name]] for name in state})


def _ranks(names: list[str]) -> list[tuple[str, int, str]]:
    """Split names into the layer's kind, the rank of its number among those of its kind, and the parameter's role in the layer."""
    parts = [re.fullmatch(r"(.+)_(\d+)\.(\w+)", name) for name in names]
    split = [(part[1], int(part[2]), part[3]) for part in parts if part]
    numbers = {kind: sorted({number for other, number, _ in split if other == kind}) for kind, _, _ in split}
    return [(kind, numbers[kind].index(number), role) for kind, number, role in split]

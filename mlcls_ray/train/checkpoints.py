"""Checkpoints: weights, averaged weights and the optimizer's state as safetensors, whole or not at all; and where the training was."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mlcls_ray.errors import RunError
from mlcls_ray.train.optimizer import AveragedWeights

WEIGHTS, AVERAGED, OPTIMIZER, STATE = (
    "weights.safetensors",
    "averaged.safetensors",
    "optimizer.safetensors",
    "state.json",
)
BEST, PREFIX = "best", "step-"


class State(BaseModel):
    """Where a training was: `step` steps are done in all, `done` of them in `epoch`."""

    model_config = ConfigDict(frozen=True)

    step: int = 0
    epoch: int = 0
    done: int = 0
    best: float = -1.0
    best_epoch: int = -1
    classes: tuple[str, ...] = ()


def save(folder: Path, name: str, network: nn.Layer, averaged: AveragedWeights, optimizer: Any, state: State) -> Path:
    """Write a checkpoint beside the others; one of the same name is replaced.

    Raises:
        RunError: it cannot be written (a full disk, say); the checkpoints before it are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        save_file({key: one.numpy() for key, one in network.state_dict().items()}, temporary / WEIGHTS)
        save_file({key: np.ascontiguousarray(one) for key, one in averaged.values.items()}, temporary / AVERAGED)
        _save_optimizer(optimizer, network, temporary)
        (temporary / STATE).write_text(state.model_dump_json())
        target = folder / name
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(
            f"checkpoint '{folder / name}' cannot be written: {getattr(error, 'strerror', None) or error}; those before it are kept"
        ) from None
    return target


def _save_optimizer(optimizer: Any, network: nn.Layer, folder: Path) -> None:
    """Moments under the structured names of their parameters: Paddle's own names count up from process to process."""
    names = {one.name: key for key, one in network.named_parameters()}
    arrays = {}
    for key, value in optimizer.state_dict().items():
        owner = next((name for name in names if key.startswith(name + "_")), None)
        if owner is None or not hasattr(value, "numpy"):
            continue
        arrays[f"{names[owner]}|{key.removeprefix(owner + '_')}"] = np.ascontiguousarray(value.numpy())
    save_file(arrays, folder / OPTIMIZER)


def read_state(path: Path) -> State:
    """Where a checkpoint's training was.

    Raises:
        RunError: it is not whole.
    """
    try:
        return State.model_validate_json((path / STATE).read_text())
    except (OSError, ValidationError) as error:
        raise RunError(f"checkpoint '{path}' cannot be read: {error}; remove it to start from the one before") from None


def restore(path: Path, network: nn.Layer, averaged: AveragedWeights, optimizer: Any) -> State:
    """Put a checkpoint's contents into network, averaged weights and optimizer.

    Raises:
        RunError: it is not whole, or of another network.
    """
    state = read_state(path)
    weights, averaged.values, moments = (read_arrays(path, name) for name in (WEIGHTS, AVERAGED, OPTIMIZER))
    if weights.keys() != network.state_dict().keys():
        raise RunError(f"checkpoint '{path}' is of another network; give another --out")
    network.set_state_dict({key: paddle.to_tensor(value) for key, value in weights.items()})
    names = {key: one.name for key, one in network.named_parameters()}
    optimizer.set_state_dict(
        {
            f"{names[key.partition('|')[0]]}_{key.partition('|')[2]}": paddle.to_tensor(value)
            for key, value in moments.items()
            if key.partition("|")[0] in names
        }
    )
    return state


def read_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """One of a checkpoint's three files.

    Raises:
        RunError: it is not whole.
    """
    try:
        arrays: dict[str, np.ndarray] = load_file(path / name)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"checkpoint '{path}' cannot be read: {error}; remove it to start from the one before") from None
    return arrays


def newest(folder: Path) -> Path | None:
    """The last checkpoint that is whole."""
    found = sorted(folder.glob(f"{PREFIX}*"), key=lambda path: int(path.name.removeprefix(PREFIX)))
    whole = [path for path in found if (path / STATE).is_file()]
    return whole[-1] if whole else None


def forget(folder: Path, keep: int) -> None:
    """Remove all but the last `keep` checkpoints (the best one is not among them)."""
    found = sorted(folder.glob(f"{PREFIX}*"), key=lambda path: int(path.name.removeprefix(PREFIX)))
    for path in found[:-keep]:
        shutil.rmtree(path)
    for path in folder.glob(".part-*"):
        shutil.rmtree(path, ignore_errors=True)

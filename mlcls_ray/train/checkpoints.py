"""Checkpoints: weights, averaged weights and the optimizer's state as safetensors, and the progress as JSON. Each is written atomically."""

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

FOLDER = "checkpoints"
WEIGHTS, AVERAGED, OPTIMIZER, STATE = (
    "weights.safetensors",
    "averaged.safetensors",
    "optimizer.safetensors",
    "state.json",
)
BEST, PREFIX, PARTIAL = "best", "step-", ".part-"


class State(BaseModel):
    """The progress of a training."""

    model_config = ConfigDict(frozen=True)

    step: int = 0
    """Steps done in all."""
    epoch: int = 0
    """Epochs completed."""
    done: int = 0
    """Steps done in the current epoch."""
    best: float = -1.0
    """The best dev mAP, 0..1."""
    best_epoch: int = -1
    """The epoch of `best`, from 0; -1: before the first one."""
    taken_over: float | None = None
    """dev mAP of the initial weights' own head, if it knows all classes."""
    fitted: float | None = None
    """dev mAP of the head that was fitted to the frozen features, before the first epoch."""
    classes: tuple[str, ...] = ()


def save(folder: Path, name: str, network: nn.Layer, averaged: AveragedWeights, optimizer: Any, state: State) -> Path:
    """Write a checkpoint; one with the same name is replaced.

    Raises:
        RunError: it cannot be written, because of a full disk for example; older checkpoints are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder))
    try:
        save_file({name: tensor.numpy() for name, tensor in network.state_dict().items()}, temporary / WEIGHTS)
        save_file({name: np.ascontiguousarray(value) for name, value in averaged.values.items()}, temporary / AVERAGED)
        _save_optimizer(optimizer, network, temporary)
        (temporary / STATE).write_text(state.model_dump_json())
        target = folder / name
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"checkpoint '{folder / name}' cannot be written: {reason}; older checkpoints are kept"
        ) from None
    return target


def _save_optimizer(optimizer: Any, network: nn.Layer, folder: Path) -> None:
    """Save the moments under the structured names of their parameters: Paddle's own names differ from process to process."""
    names = {parameter.name: name for name, parameter in network.named_parameters()}
    arrays = {}
    for key, value in optimizer.state_dict().items():
        owner = next((paddle_name for paddle_name in names if key.startswith(paddle_name + "_")), None)
        if owner is None or not hasattr(value, "numpy"):
            continue
        arrays[f"{names[owner]}|{key.removeprefix(owner + '_')}"] = np.ascontiguousarray(value.numpy())
    save_file(arrays, folder / OPTIMIZER)


def read_state(path: Path) -> State:
    """Read the progress of a checkpoint.

    Raises:
        RunError: the checkpoint is incomplete.
    """
    try:
        return State.model_validate_json((path / STATE).read_text())
    except (OSError, ValidationError) as error:
        raise _unreadable(path, error) from None


def restore(path: Path, network: nn.Layer, averaged: AveragedWeights, optimizer: Any) -> State:
    """Load a checkpoint into network, averaged weights and optimizer.

    Raises:
        RunError: the checkpoint is incomplete, or belongs to another network.
    """
    state = read_state(path)
    weights, averaged.values, moments = (read_arrays(path, name) for name in (WEIGHTS, AVERAGED, OPTIMIZER))
    if weights.keys() != network.state_dict().keys():
        raise RunError(f"checkpoint '{path}' is of another network; give another --out")
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in weights.items()})
    paddle_names = {name: parameter.name for name, parameter in network.named_parameters()}
    optimizer_state = {}
    for key, value in moments.items():
        name, _, moment = key.partition("|")
        if name in paddle_names:
            optimizer_state[f"{paddle_names[name]}_{moment}"] = paddle.to_tensor(value)
    optimizer.set_state_dict(optimizer_state)
    return state


def read_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """Read one of a checkpoint's three files of arrays.

    Raises:
        RunError: the file is incomplete.
    """
    try:
        arrays: dict[str, np.ndarray] = load_file(path / name)
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(path, error) from None
    return arrays


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"checkpoint '{path}' cannot be read: {error}; remove it to resume from the one before it")


def newest(folder: Path) -> Path | None:
    """Find the newest complete checkpoint."""
    complete = [path for path in _by_step(folder) if (path / STATE).is_file()]
    return complete[-1] if complete else None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the last `keep` checkpoints, and what interrupted writes have left. The best checkpoint stays."""
    for path in _by_step(folder)[:-keep]:
        shutil.rmtree(path)
    for path in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)


def _by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"), key=lambda path: int(path.name.removeprefix(PREFIX)))

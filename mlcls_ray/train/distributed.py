"""Several processes that train one network: Ray Train starts them, one a device, and Paddle's collectives add up their gradients.

Each takes its share of every batch, so that the sum of their gradients is the gradient of one process over the whole batch (batch norms
see their share only). All keep the same weights; the first one evaluates, notes and saves.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.devices import DEVICE_KINDS, parse_device
from mlcls_ray.errors import RunError


class Processes(NamedTuple):
    """This process among all that train together."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, rows: int) -> range:
        """Which rows of a batch are this process's."""
        return range(self.rank, rows, self.size)

    def add_gradients(self, network: nn.Layer) -> None:
        """Each gradient becomes the sum over all processes; one exchange for all of them."""
        if self.size == 1:
            return
        gradients = [one.grad for one in network.parameters() if one.grad is not None]
        flat = paddle.concat([one.flatten() for one in gradients])
        paddle.distributed.all_reduce(flat)
        for one, summed in zip(gradients, flat.split([one.size for one in gradients]), strict=True):
            one.set_value(summed.reshape(one.shape))

    def total(self, *values: float) -> tuple[float, ...]:
        """Sums over all processes; each waits for all."""
        if self.size == 1:
            return values
        return tuple(float(one) for one in self.added(np.array(values, np.float32)))

    def of_first(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The first process's arrays, in all of them."""
        if self.size == 1:
            return values
        return {name: self.added(value if self.is_first else np.zeros_like(value)) for name, value in values.items()}

    def added(self, values: np.ndarray) -> np.ndarray:
        """The sum of all processes' arrays. On CPUs none may be more than 30 s behind: that is gloo's, and Paddle has no option for it."""
        if self.size == 1:
            return values
        told = paddle.to_tensor(values)
        paddle.distributed.all_reduce(told)
        return np.asarray(told.numpy())


def on_processes(train: Callable[[Processes], None], count: int, device: str) -> None:
    """Run a function on `count` Ray workers with a device of `device`'s kind each, joined by Paddle's collectives.

    Raises:
        RunError: one of them failed, and with it all.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    kind = DEVICE_KINDS[parse_device(device).kind]
    # Half a CPU: decoding and augmenting are Ray Data's tasks, which would wait for ever where the workers had them all.
    card: dict[str, float] = {} if kind.resource == "CPU" else {kind.resource: 1}

    with tempfile.TemporaryDirectory(prefix="mlcls-train-") as storage:
        trainer = DataParallelTrainer(
            lambda: train(join(device)),
            scaling_config=ScalingConfig(
                num_workers=count, use_gpu="GPU" in card, resources_per_worker={"CPU": 0.5, **card}
            ),
            run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            # Not in the main thread, where Ray Train would answer Ctrl-C by ending everything unsaved.
            with ThreadPoolExecutor(1, thread_name_prefix="train") as thread:
                thread.submit(trainer.fit).result()
        except TrainingFailedError as error:
            raise RunError(f"a training process failed: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The last line of what went wrong in a worker; Ray Train puts its tracebacks around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else type(error).__name__)


def join(device: str) -> Processes:
    """Meet the other processes of this Ray Train run."""
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero
    from ray.util import get_node_ip_address

    context = get_context()
    processes = Processes(context.get_world_rank(), context.get_world_size())
    own = f"{get_node_ip_address()}:{_free_port()}"
    first = broadcast_from_rank_zero(own if processes.is_first else None)
    os.environ.update(
        {
            "PADDLE_TRAINER_ID": str(processes.rank),
            "PADDLE_TRAINERS_NUM": str(processes.size),
            "PADDLE_CURRENT_ENDPOINT": own,
            "PADDLE_MASTER": str(first),
            "PADDLE_TRAINER_ENDPOINTS": ",".join([str(first)] * processes.size),
            # Ray shows each process its own card, as the first.
            **(
                {"PADDLE_DISTRI_BACKEND": "gloo"}
                if parse_device(device).kind == "cpu"
                else {"FLAGS_selected_gpus": "0"}
            ),
        }
    )
    if processes.size > 1:
        paddle.distributed.init_parallel_env()
    return processes


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])

"""Several processes that train one network: Ray Train starts them, each with a device, and Paddle's collectives add up their gradients.

Each process takes its share of every batch, so that the sum of the gradients is the gradient of one process over the whole batch (except
that batch norms see only their share). All processes have the same weights; the first one evaluates, logs and saves.
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

from mlcls_ray.devices import Device
from mlcls_ray.job.ray_private import run_data_parallel


class ProcessGroup(NamedTuple):
    """This process and the ones that it trains with. On CPUs a collective fails after 30 s of waiting: a limit of gloo, fixed in Paddle."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def shard(self, rows: int) -> range:
        """Return the rows of a batch that belong to this process."""
        return range(self.rank, rows, self.size)

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of the arrays of all processes."""
        if self.size == 1:
            return values
        tensor = paddle.to_tensor(values)
        paddle.distributed.all_reduce(tensor)
        return np.asarray(tensor.numpy())

    def all_reduce_scalars(self, *values: float) -> tuple[float, ...]:
        """Return the sums of numbers over all processes."""
        if self.size == 1:
            return values
        return tuple(float(total) for total in self.all_reduce(np.array(values, np.float32)))

    def all_reduce_gradients(self, network: nn.Layer) -> None:
        """Replace each gradient by its sum over all processes, in one exchange."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = paddle.concat([gradient.flatten() for gradient in gradients])
        paddle.distributed.all_reduce(flat)
        sums = flat.split([gradient.size for gradient in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.set_value(total.reshape(gradient.shape))

    def broadcast(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the first process's arrays."""
        if self.size == 1:
            return values
        return {
            name: self.all_reduce(value if self.is_first else np.zeros_like(value)) for name, value in values.items()
        }

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.all_reduce_scalars(0.0)


def run_processes(train: Callable[[ProcessGroup], None], count: int, device: Device) -> None:
    """Run a function in `count` Ray workers with a device of `device`'s kind each, joined by Paddle's collectives.

    Raises:
        RunError: one of them failed, which ends all of them.
    """
    device_resources = {} if device.is_cpu else {device.resource: 1.0}
    # Ray Train runs in a thread: in the main thread it would answer Ctrl-C by ending the workers before they save.
    with tempfile.TemporaryDirectory(prefix="mlcls-train-") as folder, ThreadPoolExecutor(1) as thread:
        thread.submit(run_data_parallel, lambda: train(join_group(device)), count, device_resources, folder).result()


def join_group(device: Device) -> ProcessGroup:
    """Connect this Ray Train worker with the other ones."""
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero
    from ray.util import get_node_ip_address

    context = get_context()
    group = ProcessGroup(context.get_world_rank(), context.get_world_size())
    endpoint = f"{get_node_ip_address()}:{_free_port()}"
    first_endpoint = str(broadcast_from_rank_zero(endpoint if group.is_first else None))
    os.environ.update(
        {
            "PADDLE_TRAINER_ID": str(group.rank),
            "PADDLE_TRAINERS_NUM": str(group.size),
            "PADDLE_CURRENT_ENDPOINT": endpoint,
            "PADDLE_MASTER": first_endpoint,
            "PADDLE_TRAINER_ENDPOINTS": ",".join([first_endpoint] * group.size),
            # Each process sees its own device as index 0.
            **({"PADDLE_DISTRI_BACKEND": "gloo"} if device.is_cpu else {"FLAGS_selected_gpus": "0"}),
        }
    )
    if group.size > 1:
        paddle.distributed.init_parallel_env()
    return group


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])

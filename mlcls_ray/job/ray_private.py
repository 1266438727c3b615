"""Private APIs of Ray, each with the version in which it was seen. `ray` is pinned below the next minor version because of this file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from mlcls_ray.errors import RunError, ray_cause

PAUSE_S = 0.02


@contextlib.contextmanager
def first_parquet_reader() -> Iterator[None]:
    """Read Parquet by Ray Data's first reader (2.60): the second one starts actors for the footers of small files, two seconds a run."""
    context = ray.data.DataContext.get_current()
    before, context.use_datasource_v2 = context.use_datasource_v2, False
    try:
        yield
    finally:
        context.use_datasource_v2 = before


class PausingCallback(ExecutionCallback):
    """Sleep in each turn of Ray Data's scheduling loop (Ray 2.60).

    Without it the loop turns without a pause while finished batches wait for a training step, and takes half a core.
    """

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        time.sleep(PAUSE_S)


def pause_scheduling_loop(dataset: ray.data.Dataset) -> None:
    """Let Ray Data's scheduling loop pause while this dataset is executed (Ray 2.60)."""
    dataset.context.custom_execution_callback_classes = [PausingCallback]


def run_data_parallel(loop: Callable[[], None], workers: int, device_resources: dict[str, float], folder: str) -> None:
    """Run a function in each of several Ray Train workers and wait for all (Ray 2.60, the second API of Ray Train).

    Args:
        loop: called without arguments in each worker.
        workers: number of processes.
        device_resources: Ray resources of the device that each worker needs, such as {"GPU": 1}; empty on CPUs.
        folder: where Ray Train keeps its state.

    Raises:
        RunError: a worker failed, which ends all of them.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    trainer = DataParallelTrainer(
        loop,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu="GPU" in device_resources,
            # Half a CPU: decoding and augmenting are tasks of Ray Data, which would wait forever if the workers had all CPUs.
            resources_per_worker={"CPU": 0.5, **device_resources},
        ),
        run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=0)),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise RunError(f"a training process failed: {ray_cause(error)}") from None

"""Private APIs of Ray, each with the version in which it was seen. `ray` is pinned below the next minor version because of this file
and `own_ray`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable

import grpc
import ray._private.state
import ray.data
from ray._private.gcs_utils import create_gcs_channel
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.experimental.internal_kv import _internal_kv_get

from mlcls_ray.errors import RunError, ray_cause

PAUSE_S = 0.02


def head_node_problem(address: str, timeout_s: float) -> str | None:
    """Ask for a Ray head node at `host:port`, and say what is wrong; None if it answers (Ray 2.60).

    `ray.init` would wait for minutes for anything else, and repeat a wrong token for 20 seconds. With an explicit address it takes a token
    only where RAY_AUTH_MODE says so, as this does.
    """
    with contextlib.closing(create_gcs_channel(address)) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return "it asks for a token, and this is not it; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            return (
                "no head node of Ray answers there; its port is 6379, 8265 is the dashboard's, 10001 that of Ray Client"
            )
    return None


def free_resources() -> dict[str, dict[str, float]]:
    """Return the resources that no task and no actor holds, by the id of the living node (Ray 2.60)."""
    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()
    return free


def has_autoscaler() -> bool:
    """Tell whether an autoscaler can add nodes to the connected cluster (Ray 2.60)."""
    if is_autoscaler_v2(fetch_from_server=True):
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        types = [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
    else:
        report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or b"{}").get("autoscaler_report") or {}
        types = [*(report.get("active_nodes") or {}), *(report.get("node_type_mapping") or {}).values()]
    return names_groups(types, [node["NodeID"] for node in ray.nodes()])


def names_groups(types: Iterable[str], node_ids: Iterable[str]) -> bool:
    """Tell whether node types are those of an autoscaler's groups.

    Each cluster has a monitor, also one without an autoscaler. It then leaves types out, or names them after the nodes that there are.
    """
    return not set(types) <= {"", *(f"node_{node_id}" for node_id in node_ids)}


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

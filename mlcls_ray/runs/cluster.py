"""The Ray cluster: connecting to one, or starting one on this machine."""

from __future__ import annotations

import logging
import os
from typing import NamedTuple

QUIET_ENVIRONMENT = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "1",
}
LOCAL_ADDRESS = "127.0.0.1"


class Node(NamedTuple):
    """What one living node has: CPUs, and everything by Ray's resource names."""

    cpus: int
    resources: dict[str, float]


def connect(address: str | None, verbose: bool = False) -> None:
    """Connect to `address`, or RAY_ADDRESS, or the cluster that this process is part of; else start Ray here.

    A Ray started here listens on 127.0.0.1 only, without a dashboard. Its workers inherit this process's environment.
    """
    if not verbose:
        for name, value in QUIET_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    import ray  # the environment above must be there first

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR} if not verbose else {}
    if not ray.is_initialized():
        target = address or os.environ.get("RAY_ADDRESS")
        if target:
            ray.init(address=target, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, _node_ip_address=LOCAL_ADDRESS, **quiet)
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.enable_rich_progress_bars = False
    context.print_on_execution_start = verbose
    # A single worker that dies while it loads the model must not end the job.
    context.max_consecutive_actor_init_deaths = 3
    if not verbose:
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)


def living_nodes() -> list[Node]:
    """The nodes of the connected cluster."""
    import ray

    return [
        Node(int(node["Resources"].get("CPU", 0)), dict(node["Resources"])) for node in ray.nodes() if node["Alive"]
    ]

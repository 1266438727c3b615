"""A cluster on loopback that starts with no worker, and whose autoscaler starts fake nodes: `ray.cluster_utils.AutoscalingCluster`,
but on ports of its own, and ended without `ray stop`, which would end every Ray of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import tenacity
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

from mlcls_ray.job.cluster import LOOPBACK_ONLY

LISTS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter",
)  # fmt: skip
EMPTY: Mapping[str, object] = {
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{name: [] for name in LISTS},
    "file_mounts_sync_continuously": False,
}
"""Fields that the autoscaler's schema asks for."""


def config(port: int, node_types: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """The autoscaler's configuration: no more than two nodes of each type."""
    types = {
        name: {"resources": dict(resources), "node_config": {}, "min_workers": 0, "max_workers": 2}
        for name, resources in node_types.items()
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    return {
        **EMPTY,
        "cluster_name": "fake",
        "max_workers": 4,
        "provider": {
            # Not `fake_multinode`, whose default configuration is not in Ray's wheel.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"127.0.0.1:{port}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
        },
        "available_node_types": {**types, FAKE_HEAD_NODE_TYPE: head},
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 1,
    }


@tenacity.retry(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.2), reraise=True)
def wait_until_started(log: Path) -> None:
    assert "Ray runtime started" in log.read_text(), log.read_text()


@contextlib.contextmanager
def autoscaling_cluster(
    folder: Path, node_types: Mapping[str, Mapping[str, float]], variables: Mapping[str, str], version: int = 1
) -> Iterator[str]:
    """Start the cluster; yields its address. `variables`: the environment of its nodes. `version`: of the autoscaler."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "autoscaler.json").write_text(json.dumps(config(port, node_types)))
    environment = {
        **os.environ, **LOOPBACK_ONLY, **variables,
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID, "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_enable_autoscaler_v2": str(version - 1),
    }  # fmt: skip
    words = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=0",
        "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats",
        f"--autoscaling-config={folder / 'autoscaler.json'}",
    ]  # fmt: skip
    with open(folder / "head.log", "wb") as log:
        head = subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until_started(folder / "head.log")
        yield f"127.0.0.1:{port}"
    finally:
        processes = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=20)
        head.wait()

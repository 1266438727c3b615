"""A cluster that is scaled to zero: the job asks for machines, says so, and waits for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.storage.store import Store
from mlcls_ray.table.verify import verify
from tests.conftest import run_installed
from tests.devices.plugins import build
from tests.faults.autoscaling import autoscaling_cluster

NODE_TYPES = {"cpu": {"CPU": 2}, "gpu": {"CPU": 2, "GPU": 1}, "npu": {"CPU": 2, "NPU": 1}}
STORE = {"object_store_memory": 200_000_000}


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 2}


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_machines_come_when_a_job_asks(
    tiny_folder: Path, folder_of_images: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, version: int
) -> None:
    """CPUs, an NPU and a GPU; then a device of which no machine has one, which is refused when the time is over."""
    plugins = build(tmp_path_factory.mktemp("plugins"))
    types = {name: {**resources, **STORE} for name, resources in NODE_TYPES.items()}
    with autoscaling_cluster(tmp_path, types, {**plugins, **TOKEN}, version) as address:

        def run(device: str, *words: object, check: int = 0) -> str:
            fixed = ("--out", tmp_path / device, "--model", tiny_folder, "--ray-address", address, "--device", device)
            return run_installed("label", folder_of_images, *fixed, *words, check=check, env=TOKEN, timeout=400).stderr

        wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 32}
        words = ("--out", tmp_path / "cpu", "--ray-address", address)
        refused = run_installed("label", folder_of_images, *words, check=2, env=wrong).stderr
        assert refused == f"mlcls: the Ray cluster at '{address}': it asks for a token, and this is not it; " + (
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN\n"
        )
        told = run("cpu", "--workers", 2)
        assert "the cluster has no CPU yet: waiting for its autoscaler to start 2" in told
        assert verify(Store(str(tmp_path / "cpu"))) == []
        assert "waiting" not in run("cpu", "--run-id", "again")  # its machines are still there
        assert "the cluster has no NPU yet" in run("npu")
        assert verify(Store(str(tmp_path / "npu"))) == []
        # The machine comes, and the device is then checked there: this Paddle knows no GPU.
        told = run("gpu", check=2)
        assert "the cluster has no GPU yet" in told
        assert "on the Ray worker that has the GPU" in told
        told = run("mlu", "--wait-for-resources", "10s", check=2)
        assert "the autoscaler has started no machine with MLU within 10 s" in told
        assert "waiting" not in run("mlu", "--wait-for-resources", "0s", check=2)
        assert list((tmp_path / "mlu").rglob("*.parquet")) == []

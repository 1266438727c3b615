"""Faked devices, real scheduling: each scoring worker has a device of its own, all are used, and a device can be shared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mlcls_ray.job.cluster import LOOPBACK_ONLY
from mlcls_ray.storage.store import Store
from mlcls_ray.table.verify import verify
from tests.conftest import ROOT, hard_links

ROWS = 60
SLICES = ("MIG-aaaa", "MIG-bbbb")
"""The GPUs are two slices of one card, by their UUIDs; a worker is shown one of them."""
RAYS_OWN = {"gpu-shared": ("gpu", 2), "npu": ("npu", 1)}
CLAIMED = {"mlu-shared": ("mlu", 2), "mlu-second": ("mlu:1", 1)}
"""Kinds that Ray does not manage: each worker claims a device by a lock file."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(RAYS_OWN, marks=pytest.mark.slow), pytest.param(CLAIMED, marks=pytest.mark.slow)],
    ids=["ray", "claimed"],
)
def outputs(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jobs' outputs: all of them on one Ray."""
    folder = tmp_path_factory.mktemp("devices")
    hard_links(folder / "images", ROWS)
    shutil.copytree(tiny_folder, folder / "model")
    (folder / "jobs.json").write_text(json.dumps(request.param))
    done = subprocess.run(
        [sys.executable, "-m", "tests.job.stand_in", folder],
        env={
            **os.environ,
            **LOOPBACK_ONLY,
            "MLCLS_HOME": str(folder / "home"),
            "CUDA_VISIBLE_DEVICES": ",".join(SLICES),
        },
        cwd=ROOT,
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [line.split()[1] for line in done.stdout.splitlines()] == [str(ROWS)] * len(request.param)
    return folder


EXPECTED = {
    "gpu-shared": ("shown", dict.fromkeys(SLICES, 2)),
    "npu": ("shown", {"0": 1, "1": 1}),
    "mlu-shared": ("claimed", {"mlu:0": 2, "mlu:1": 2}),
    "mlu-second": ("claimed", {"mlu:1": 1}),
}


def test_who_has_which_device(outputs: Path) -> None:
    for job in json.loads((outputs / "jobs.json").read_text()):
        field, expected = EXPECTED[job]
        workers = [json.loads(path.read_text()) for path in (outputs / job / "devices").iterdir()]
        assert Counter(worker[field] for worker in workers) == expected, job
        device, workers_per_device = {**RAYS_OWN, **CLAIMED}[job]
        resource = device.partition(":")[0].upper()
        assert all(worker["ray"][resource] == 1 / workers_per_device for worker in workers)
        if field == "shown":  # Ray shows a worker one device, which is then the first
            assert {worker["claimed"] for worker in workers} == {f"{job.partition('-')[0]}:0"}
        assert verify(Store(str(outputs / job))) == []

"""Several nodes on loopback, of unequal size: one is killed while the job runs; the accelerator is on another than the driver's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.storage.store import Store
from mlcls_ray.table.records import read_success
from mlcls_ray.table.verify import verify
from tests.conftest import hard_links
from tests.faults.exactly_once import exactly_once

START = """
import os, threading, time
import ray
from ray.cluster_utils import Cluster
from mlcls_ray.config import LabelJob
from mlcls_ray.errors import UsageError
from mlcls_ray.job import label as jobs
from mlcls_ray.job.supervise import label_until_done

# how soon a silent node counts as dead
QUICK = {{"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}}
job = LabelJob.model_validate_json({job!r})
homes = {homes!r}
cluster = Cluster(initialize_head=True, connect=True, head_node_args={{"num_cpus": 2, "_system_config": QUICK}})

def add_node(number, **resources):
    return cluster.add_node(env_vars={{"MLCLS_HOME": f"{{homes}}/{{number}}"}}, **resources)
"""

KILL_ONE = """
doomed = add_node(1, num_cpus=3)
add_node(2, num_cpus=2)
cluster.wait_for_nodes()

def kill():
    labels = os.path.join(job.out, "runs", "r", "labels")
    while not os.path.isdir(labels) or len(os.listdir(labels)) < 3:
        time.sleep(0.05)
    cluster.remove_node(doomed, allow_graceful=False)
    print("killed", flush=True)

thread = threading.Thread(target=kill, daemon=True)
thread.start()
success = jobs.label(job)
thread.join()
print(success.rows, flush=True)
ray.shutdown()
"""

ACCELERATOR_ELSEWHERE = """
add_node(1, num_cpus=2, resources={"NPU": 1.0})
cluster.wait_for_nodes()
try:
    jobs.label(job.model_copy(update={"device": "npu"}))
except UsageError as error:
    print(error, flush=True)

# The same pools, with an engine that this machine has: the scoring workers go where the NPU is.
from mlcls_ray.devices import parse_device
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.plan import plan_run
from mlcls_ray.job.pools import size_pools
nodes, device = living_nodes(), parse_device("npu")
run = plan_run(jobs.check_job(job), nodes)
run = run._replace(pools=size_pools(job, device, nodes, run.rows, 1000, 16))
print(run.pools.placement, run.pools.scoring.workers, run.pools.scoring.device, flush=True)
labeled = label_until_done(run)
(model,) = labeled.run.models
print(jobs.commit(model, labeled.fragments[model.name], 1.0).rows, flush=True)
ray.shutdown()
"""


def run_script(script: str, job: LabelJob, homes: Path) -> str:
    code = START.format(job=job.model_dump_json(), homes=str(homes)) + script
    done = subprocess.run([sys.executable, "-c", code], timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def make_job(model: Path, images: Path, out: Path, **fields: object) -> LabelJob:
    return LabelJob(
        inputs=(str(images),), out=str(out), model=str(model), engine="paddle", precision="fp32", run_id="r", **fields
    )


def shipped(homes: Path, node: int) -> list[str]:
    return sorted(path.name for path in (homes / str(node) / "models").iterdir() if not path.name.startswith("."))


@pytest.mark.slow
def test_a_node_is_killed(tiny_folder: Path, tmp_path: Path) -> None:
    """Its rows run again elsewhere; the model's files reached each node's own cache once, from the driver's object store."""
    images = hard_links(tmp_path / "images", 5000)
    job = make_job(tiny_folder, images, tmp_path / "out", rows_per_fragment=200, block_rows=50)
    told = run_script(KILL_ONE, job, tmp_path / "homes")
    assert "killed" in told  # Ray's own words may stand right before and behind it
    success = read_success(Store(job.out), "r")
    assert success is not None
    assert success.rows == 5000
    assert exactly_once(tmp_path / "out", "r", 5000)
    assert verify(Store(job.out)) == []
    assert shipped(tmp_path / "homes", 1) == shipped(tmp_path / "homes", 2)
    assert len(shipped(tmp_path / "homes", 2)) == 1


@pytest.mark.slow
def test_the_accelerator_is_on_another_node(tiny_folder: Path, folder_of_images: Path, tmp_path: Path) -> None:
    said = run_script(
        ACCELERATOR_ELSEWHERE, make_job(tiny_folder, folder_of_images, tmp_path / "out"), tmp_path / "homes"
    )
    told = [line for line in said.splitlines() if "pid=" not in line]
    assert "this Paddle was built without npu" in told[0]
    assert "on the Ray worker that has the NPU" in told[0]
    assert told[1:] == ["split 1 npu", "30"]
    assert verify(Store(str(tmp_path / "out"))) == []

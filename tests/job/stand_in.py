"""A worker that claims a device like the real one, scores on the CPU, and writes down which device it has. Run by test_devices.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import DEVICE_KINDS, Device, parse_device
from mlcls_ray.job.check import check_job
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import plan_run
from mlcls_ray.job.pools import size_pools
from mlcls_ray.job.supervise import label_until_done
from mlcls_ray.stages.score import Score
from mlcls_ray.stages.spec import Batch, RunSpec

SCORE_S = 0.2
"""So slow that every worker has started before the work is done."""


class StandInScore(Score):
    """Scores on the CPU; says what it was shown and what it claimed, once per process."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec._replace(device=Device("cpu")))
        claimed = {
            "shown": os.environ.get(DEVICE_KINDS[spec.device.kind].visible_devices),
            "claimed": str(spec.device),
            "ray": ray.get_runtime_context().get_assigned_resources(),
        }
        folder = Path(spec.job.out.removeprefix("file://")) / "devices"
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).write_text(json.dumps(claimed))

    def __call__(self, batch: Any) -> Batch:
        time.sleep(SCORE_S)
        return super().__call__(batch)


def main() -> None:
    """`stand_in.py FOLDER`: label FOLDER/images with FOLDER/model by each job of FOLDER/jobs.json, on faked devices."""
    folder = Path(sys.argv[1])
    faked = {"NPU": 2.0, "MLU": 2.0}
    ray.init("local", num_cpus=2, num_gpus=2, resources=faked, include_dashboard=False, log_to_driver=False)
    from mlcls_ray.job.pipeline import STAGES

    stages = [StandInScore if stage is Score else stage for stage in STAGES]
    for name, (text, workers_per_device) in json.loads((folder / "jobs.json").read_text()).items():
        job = LabelJob(
            inputs=(str(folder / "images"),),
            out=str(folder / name),
            model=str(folder / "model"),
            workers_per_device=workers_per_device,
            batch_size=2,
            block_rows=2,
        )
        nodes, device = living_nodes(), parse_device(text)
        run = plan_run(check_job(job), nodes)
        run = run._replace(device=device, pools=size_pools(job, device, nodes, run.rows, 1000, 2))
        labeled = label_until_done(run, stages)
        (model,) = labeled.run.models
        print(name, commit(model, labeled.fragments[model.name], 1.0).rows, flush=True)


if __name__ == "__main__":
    main()

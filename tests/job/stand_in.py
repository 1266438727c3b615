"""A scoring worker that asks for a card like the real one, scores on the CPU, and writes down which card it has. Run by test_cards.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import DEVICE_KINDS, Device, parse_device
from mlcls_ray.job import pipeline
from mlcls_ray.job.cards import claim_device
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import freeze, prepare
from mlcls_ray.job.pools import size_pools
from mlcls_ray.job.workers import ScoreWorker, WorkerSpec

SCORE_S = 0.2
"""So slow that every worker has started before the work is done."""


class StandIn(ScoreWorker):
    """Says what it was shown and what it took, once per process."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec._replace(device=Device("cpu")))
        self.card = claim_device(spec.device, spec.job.workers_per_device)
        told = {
            "shown": os.environ.get(DEVICE_KINDS[spec.device.kind].visible),
            "taken": str(self.card.device),
            "ray": ray.get_runtime_context().get_assigned_resources(),
        }
        folder = Path(spec.job.out.removeprefix("file://")) / "cards"
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).write_text(json.dumps(told))

    def __call__(self, batch: Any) -> pa.Table:
        time.sleep(SCORE_S)
        return super().__call__(batch)


def main() -> None:
    """`stand_in.py FOLDER`: label FOLDER/images with FOLDER/model on each of the jobs in FOLDER/jobs.json; a cluster with faked cards."""
    folder = Path(sys.argv[1])
    faked = {"NPU": 2.0, "MLU": 2.0}
    ray.init("local", num_cpus=2, num_gpus=2, resources=faked, include_dashboard=False, log_to_driver=False)
    pipeline.ScoreWorker = StandIn  # type: ignore[misc]
    for name, (device, workers_per_device) in json.loads((folder / "jobs.json").read_text()).items():
        job = LabelJob(
            inputs=(str(folder / "images"),),
            out=str(folder / name),
            model=str(folder / "model"),
            workers_per_device=workers_per_device,
            batch_size=2,
            block_rows=2,
        )
        nodes = living_nodes()
        asked = parse_device(device)
        prepared = prepare(job)._replace(device=asked)
        plan = freeze(prepared._replace(device=Device("cpu")), nodes)
        plan = plan._replace(prepared=prepared, pools=size_pools(job, asked, nodes, plan.record.rows, 1000))
        plan, (fragments,), _ = pipeline.label_waves(plan)
        print(name, commit(plan, fragments, 1.0).rows, flush=True)


if __name__ == "__main__":
    main()

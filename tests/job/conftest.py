"""A planned run of five rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.job.check import check_job
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.plan import Run, plan_run
from tests.table.fragments import RUN


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    list_file = tmp_path_factory.mktemp("list") / "list.txt"
    list_file.write_text("".join(f"/{row_id}.jpg\n" for row_id in range(5)))
    job = LabelJob(inputs=(str(list_file),), out=str(tmp_path), model=str(tiny_folder), run_id=RUN)
    return plan_run(check_job(job), [Node(2, {"CPU": 2.0})])

"""A planned run of five rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.plan import Plan, freeze, prepare
from tests.table.fragments import RUN


@pytest.fixture
def plan(tiny_folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    listed = tmp_path_factory.mktemp("list") / "list.txt"
    listed.write_text("".join(f"/{row_id}.jpg\n" for row_id in range(5)))
    job = LabelJob(inputs=(str(listed),), out=str(tmp_path), model=str(tiny_folder), run_id=RUN)
    return freeze(prepare(job), [Node(2, {"CPU": 2.0})])

"""A planned run of five rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.runs.cluster import Node
from mlcls_ray.runs.plan import Plan, freeze, prepare
from tests.runs.fragments import RUN


@pytest.fixture
def plan(folder_of_images: Path, tiny_folder: Path, tmp_path: Path) -> Plan:
    job = LabelJob(inputs=(str(folder_of_images),), out=str(tmp_path), model=str(tiny_folder), run_id=RUN, limit=5)
    return freeze(prepare(job), [Node(2, {"CPU": 2.0})])

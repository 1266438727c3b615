"""A whole job over tar shards and Parquet files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.table.verify import verify
from tests.conftest import quick_job, run_cli
from tests.storage.inputs.samples import write_parquet, write_tar


@pytest.mark.usefixtures("loopback_ray")
def test_a_job_over_shards_resumes_and_is_incremental(tiny_folder: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "shard-0.tar", ["1.jpg", "2.jpg", "3.jpg"])
    write_parquet(tmp_path / "part-0.parquet", struct=True)
    inputs = (str(tmp_path / "shard-*.tar"), str(tmp_path / "*.parquet"))
    job = quick_job(inputs=inputs, out=str(tmp_path / "out"), model=str(tiny_folder), incremental=True, batch_size=2)
    first = label(job, run_id="first")
    assert first.statuses == {"ok": 8}
    assert verify(Store(str(tmp_path / "out"))) == []
    assert label(job, run_id="again").rows == 0
    write_tar(tmp_path / "shard-1.tar", ["1.jpg", "2.jpg"])
    assert label(job, run_id="second").rows == 2
    write_tar(tmp_path / "shard-0.tar", ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    assert label(job, run_id="third").rows == 4, "the members change with their archive"
    run_cli("search", tmp_path / "out", "--label", "cat", "--copy", tmp_path / "found")
    assert len(list((tmp_path / "found").iterdir())) >= 1

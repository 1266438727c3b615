"""A device that is lost while it scores: its worker ends and is replaced, and every row is labeled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.job.check import check_job
from mlcls_ray.job.label import run_job
from mlcls_ray.job.pipeline import STAGES
from mlcls_ray.stages.score import Score
from mlcls_ray.storage.store import Store
from mlcls_ray.table.verify import verify
from tests.conftest import hard_links, quick_job
from tests.faults.exactly_once import exactly_once
from tests.faults.losable_device import LOSSES, ScoreOnLosableDevice

ROWS = 200


@pytest.mark.usefixtures("loopback_ray")
def test_the_worker_is_replaced_and_no_row_is_lost(tiny_folder: Path, tmp_path: Path) -> None:
    lost = tmp_path / "out.lost"
    lost.mkdir()
    images = hard_links(tmp_path / "images", ROWS)
    job = quick_job(
        inputs=(str(images),),
        out=str(tmp_path / "out"),
        model=str(tiny_folder),
        run_id="r",
        batch_size=4,
        block_rows=40,
    )
    stages = [ScoreOnLosableDevice if stage is Score else stage for stage in STAGES]
    (done,) = run_job(check_job(job), stages=stages).successes
    assert done.statuses == {"ok": ROWS}, "no image is blamed for the device"
    assert exactly_once(job.out, "r", ROWS)
    assert verify(Store(job.out)) == []
    assert len(list(lost.iterdir())) == LOSSES, "each loss ended a process of its own"

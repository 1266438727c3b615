"""The tally: the failure limit, the user's stop, and a first wave that is cut anew at the measured rate."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray

from mlcls_ray.config import LabelJob
from mlcls_ray.job import pipeline
from mlcls_ray.job.label import label
from mlcls_ray.job.plan import Plan
from mlcls_ray.job.tally import Pace, Tally
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.verify import verify
from tests.conftest import hard_links

pytestmark = pytest.mark.usefixtures("loopback_ray")


def reason(tally: object) -> str:
    return str(ray.get(tally.stop_reason.remote()))  # type: ignore[attr-defined]


def test_failures_and_the_user() -> None:
    tally = Tally.remote(3, 1)
    tally.add.remote({"ok": 5, "corrupt": 2})
    assert reason(tally) == ""
    tally.add.remote({"missing": 1})
    assert reason(tally) == "failures"
    tally.stop.remote("interrupt")
    assert reason(tally) == "interrupt"
    assert ray.get(tally.counts.remote()) == {"ok": 5, "corrupt": 2, "missing": 1}


@pytest.mark.parametrize(
    ("rows", "fragment_rows", "expected"),
    [
        (10**6, 500, "resize"),  # a minute of a worker's work is thousands of rows here
        (10**6, 10**9, "resize"),
        (100, 500, ""),  # nothing worth new workers is left
    ],
)
def test_the_first_wave_is_judged_once(rows: int, fragment_rows: int, expected: str) -> None:
    tally = Tally.remote(None, 0, Pace(1, rows, fragment_rows, 60.0, watch_s=0.1, worth_s=10.0))
    ray.get(tally.counts.remote())  # it has started
    for _ in range(6):
        tally.add.remote({"ok": 50})
        time.sleep(0.05)
    assert reason(tally) == expected
    assert ray.get(tally.measured_rate.remote()) > 100


def test_a_long_run_is_cut_anew(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real workers, watched for half a second: the rest comes in fragments of the wanted seconds of work."""
    images = hard_links(tmp_path / "images", 6000)
    chosen = pipeline.pace

    def quick(plan: Plan) -> Pace | None:
        pace = chosen(plan)
        return pace and pace._replace(watch_s=0.5, worth_s=0.5)

    monkeypatch.setattr(pipeline, "pace", quick)
    monkeypatch.setattr("mlcls_ray.job.fragment_rows.FIRST_FRAGMENT_ROWS", 20)
    job = LabelJob(
        inputs=(str(images),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r", fragment_seconds=2.0
    )
    success = label(job)
    assert success is not None
    first = [one.rows for one in success.fragments if layout.attempt_of(one.name) == 1]
    second = [one.rows for one in success.fragments if layout.attempt_of(one.name) == 2]
    assert len(first) > 2
    assert max(second) > 4 * max(first), (first, second)
    assert verify(Store(job.out)) == []

"""`mlcls prune`: old runs go when each row has a newer one, and never otherwise."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from mlcls_ray import open_labels
from mlcls_ray.errors import UsageError
from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.table.prune import find_superseded, parse_age
from mlcls_ray.table.verify import verify
from tests.conftest import encode, picture, quick_job, run_cli


def test_ages() -> None:
    assert (parse_age("12h"), parse_age("30d"), parse_age("2w")) == (
        timedelta(hours=12),
        timedelta(days=30),
        timedelta(days=14),
    )
    for text in ("30", "d", "-1d", "1y", "1.5d"):
        with pytest.raises(UsageError, match="--keep"):
            parse_age(text)


@pytest.mark.usefixtures("loopback_ray")
def test_the_newest_row_of_a_uri_never_goes(tiny_folder: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    job = quick_job(inputs=(str(images),), out=str(out), model=str(tiny_folder), incremental=True)
    for night, names in enumerate((("a.jpg",), ("a.jpg", "b.jpg"), ("b.jpg",), ("a.jpg", "b.jpg", "c.jpg"))):
        for name in names:
            (images / name).write_bytes(encode(picture(seed=10 * night + ord(name[0]))))
        label(job.model_copy(update={"run_id": f"night-{night}"}))
        path = out / f"runs/night-{night}/_SUCCESS"
        success = json.loads(path.read_text())
        success["committed_at"] = (datetime.now(timezone.utc) - timedelta(days=40 - night)).isoformat()
        path.write_text(json.dumps(success))
    store = Store(str(out))
    before = open_labels(str(out)).sql("SELECT uri, run_id FROM labels ORDER BY 1").fetchall()
    assert find_superseded(store, timedelta(days=39, hours=12)) == ["night-0"]
    assert find_superseded(store, timedelta(days=60)) == []
    assert "3 run(s) could go" in run_cli("prune", out, "--keep", "30d", "--dry-run").stdout
    assert run_cli("prune", out, "--keep", "30d").stdout.splitlines() == [
        "night-0",
        "night-1",
        "night-2",
        "3 run(s) removed",
    ]
    assert open_labels(str(out)).sql("SELECT uri, run_id FROM labels ORDER BY 1").fetchall() == before
    assert sorted(path.name for path in (out / "runs").iterdir()) == ["night-3"]
    assert verify(store) == []
    assert not label(job.model_copy(update={"run_id": "night-4"})).is_new
    assert "0 run(s) removed" in run_cli("prune", out, "--keep", "30d").stdout

"""Files that are not what they were when they were listed."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlcls_ray.job.check import check_job
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.label import label
from mlcls_ray.job.plan import plan_run
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.verify import verify
from tests.conftest import encode, picture, quick_job


@pytest.mark.usefixtures("loopback_ray")
def test_what_changes_after_the_listing(tiny_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    small, large = encode(picture()), encode(picture(1200, 900, seed=1), quality=95)
    names = (
        "became_a_folder",
        "became_a_pipe",
        "emptied",
        "grew",
        "grew_too_much",
        "lost_permission",
        "shrank",
        "stays",
        "vanished",
    )
    for name in names:
        (images / f"{name}.jpg").write_bytes(large if name == "shrank" else small)
    job = quick_job(
        inputs=(str(images),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r", max_bytes=2 * len(large)
    )
    plan_run(check_job(job), living_nodes())  # lists, and dies

    for name in ("became_a_folder", "became_a_pipe", "vanished"):
        (images / f"{name}.jpg").unlink()
    (images / "became_a_folder.jpg").mkdir()
    os.mkfifo(images / "became_a_pipe.jpg")
    (images / "emptied.jpg").write_bytes(b"")
    (images / "grew.jpg").write_bytes(large)
    (images / "grew_too_much.jpg").write_bytes(large * 3)
    (images / "shrank.jpg").write_bytes(large[: len(large) // 2])
    (images / "lost_permission.jpg").chmod(0)
    label(job)
    rows = pq.read_table(tmp_path / "out" / layout.labels_folder("r")).sort_by("uri").to_pylist()
    found = {Path(row["uri"]).stem: (row["status"], row["size_bytes"]) for row in rows}
    listed = len(small)
    assert found == {
        "became_a_folder": ("unsupported", listed),
        "became_a_pipe": ("unsupported", listed),
        "emptied": ("empty", listed),
        "grew": ("ok", len(large)),
        "grew_too_much": ("too_large", listed),
        "lost_permission": ("ok" if os.geteuid() == 0 else "denied", listed),
        "shrank": ("corrupt", len(large) // 2),
        "stays": ("ok", listed),
        "vanished": ("missing", listed),
    }
    assert all(row["content_hash"] is None for row in rows if row["status"] in ("missing", "empty", "unsupported"))
    assert verify(Store(job.out)) == []

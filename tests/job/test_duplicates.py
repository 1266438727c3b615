"""Identical bytes are scored once; a copy that cannot get its original's row is labeled for itself."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray import schema
from mlcls_ray.job.check import check_job
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.label import label
from mlcls_ray.job.plan import plan_run
from mlcls_ray.stages.read import hash_content
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.manifest import to_parquet
from mlcls_ray.table.verify import verify
from tests.conftest import encode, picture, quick_job

pytestmark = pytest.mark.usefixtures("loopback_ray")


def test_each_content_is_scored_once(tiny_folder: Path, tmp_path: Path) -> None:
    """Ten files of four contents, one of them not an image, and one of a size of its own."""
    (tmp_path / "images").mkdir()
    for number in range(10):
        data = b"<html>" if number % 4 == 3 else encode(picture(seed=number % 4))
        (tmp_path / "images" / f"{number}.jpg").write_bytes(data)
    (tmp_path / "images" / "alone.jpg").write_bytes(encode(picture(300, 200)))
    out = tmp_path / "out"
    job = quick_job(
        inputs=(str(tmp_path / "images"),), out=str(out), model=str(tiny_folder), run_id="r", dedupe=True, batch_size=1
    )
    success = label(job)
    assert success.statuses == {"ok": 9, "not_an_image": 2}
    assert verify(Store(job.out)) == []
    table = pq.read_table(out / layout.labels_folder("r")).sort_by("row_id")
    assert [Path(uri).name for uri in table.column("uri").to_pylist()] == [
        *[f"{n}.jpg" for n in range(10)],
        "alone.jpg",
    ]
    copies: dict[str, set[object]] = {}
    for row in table.to_pylist():
        copies.setdefault(row["content_hash"], set()).add(row["labeled_at"])
    assert [len(moments) for moments in copies.values()] == [1] * 5, (
        "one image a batch: a copy that has its original's moment was not scored"
    )
    paths = [tmp_path / "images" / f"{number}.jpg" for number in range(10)]
    assert table.column("content_hash").to_pylist()[:10] == [hash_content(path.read_bytes()) for path in paths]
    changed = [name for name in table.column_names if name not in ("row_id", "uri", "mtime", "labeled_at", "run_id")]
    without = quick_job(inputs=job.inputs, out=str(tmp_path / "plain"), model=job.model, run_id="r", batch_size=1)
    label(without)
    plain = pq.read_table(tmp_path / "plain" / layout.labels_folder("r")).sort_by("row_id")
    assert table.select([*changed, "row_id", "mtime"]).equals(plain.select([*changed, "row_id", "mtime"]))


def test_a_copy_of_something_that_changed_is_labeled_for_itself(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(encode(picture(seed=number)))
    job = quick_job(inputs=(str(tmp_path / "images"),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r")
    run = plan_run(check_job(job), living_nodes())
    copies = {"row_id": [1, 2], "original": [0, 0], "content_hash": ["what row 0 was", hash_content(b"")]}
    run.store.write(
        f"{layout.duplicates_folder('r')}/part-00000.parquet", to_parquet(pa.table(copies, schema=schema.DUPLICATES))
    )
    success = label(job)
    assert success.statuses == {"ok": 3}
    table = pq.read_table(tmp_path / "out" / layout.labels_folder("r")).sort_by("row_id")
    assert len(set(table.column("content_hash").to_pylist())) == 3
    assert verify(Store(job.out)) == []


def test_malformed_urls_are_rows_and_do_not_end_the_job(tiny_folder: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(encode(picture()))
    (tmp_path / "list.txt").write_text(
        "a.jpg\nb.jpg\nhttp://a..b/x.jpg\nhttp://[::1\nhttp://xn--a/x.jpg\nftp://h/x.jpg\n"
    )
    job = quick_job(
        inputs=(str(tmp_path / "list.txt"),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r", dedupe=True
    )
    assert label(job).statuses == {"ok": 2, "unsupported": 4}
    assert verify(Store(job.out)) == []

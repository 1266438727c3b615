"""An object store that fails: 5 % of all requests, all writes for a while, or a disk that is full."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
import ray

from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.verify import verify
from tests.conftest import encode, hard_links, picture, quick_job
from tests.faults.exactly_once import exactly_once
from tests.faulty_proxy import FAULTS, faulty_proxy
from tests.s3_servers import BUCKET, filesystem

IMAGES = 200


@pytest.fixture
def bucket(s3_slowly: str) -> str:
    """A prefix with IMAGES objects under `photos`."""
    client = filesystem(s3_slowly)
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    client.pipe({f"{base}/photos/{number:03d}.jpg": encode(picture(seed=number % 20)) for number in range(IMAGES)})
    return base


def make_job(bucket: str, model: Path, endpoint: str, **fields: object) -> LabelJob:
    s3 = S3Options(endpoint_url=endpoint, timeout_s=2.0)
    return quick_job(
        inputs=(f"s3://{bucket}/photos",), out=f"s3://{bucket}/out", model=str(model), run_id="r", s3=s3,
        rows_per_fragment=20, block_rows=16, **fields,
    )  # fmt: skip


def test_a_store_that_fails_now_and_then(s3_slowly: str, bucket: str, tiny_folder: Path, loopback_ray: None) -> None:
    with faulty_proxy(s3_slowly, share=0.05) as proxy:
        success = label(make_job(bucket, tiny_folder, proxy.url))
        print("injected", dict(proxy.injected), "into", proxy.requests)
        assert set(proxy.injected) == set(FAULTS)
        assert proxy.injected.total() > 0.03 * proxy.requests
    assert success.statuses == {"ok": IMAGES}
    store = Store(f"s3://{bucket}/out", S3Options(endpoint_url=s3_slowly))
    assert verify(store) == []


@pytest.mark.slow
def test_a_store_without_etags(s3_slowly: str, bucket: str, tiny_folder: Path, loopback_ray: None) -> None:
    """The key of the next night is then size and time."""
    client = filesystem(s3_slowly)
    with faulty_proxy(s3_slowly, share=0.0, etags=False) as proxy:
        job = make_job(bucket, tiny_folder, proxy.url, incremental=True).model_copy(update={"run_id": None})
        assert label(job).is_new
        assert label(job).rows == 0
        client.pipe_file(f"{bucket}/photos/007.jpg", encode(picture(99, 55)))
        again = label(job)
        assert again.rows == 1
        assert verify(Store(job.out, job.s3)) == []


@pytest.mark.slow
def test_a_store_that_refuses_writes(s3_slowly: str, bucket: str, tiny_folder: Path, loopback_ray: None) -> None:
    with faulty_proxy(s3_slowly, share=0.0) as proxy:
        job = make_job(bucket, tiny_folder, proxy.url)
        proxy.refused_methods, proxy.refused_path = {"PUT", "POST"}, "/labels/"
        with pytest.raises(RunError, match="run 'r' stopped: .*the same command .* resumes it"):
            label(job)
        store = Store(job.out, job.s3)
        assert store.names(layout.labels_folder("r")) == []
        proxy.refused_path = ""
        with pytest.raises(UsageError, match="cannot be written"):
            label(job)
        proxy.refused_methods = set()
        success = label(job)
        assert success.statuses == {"ok": IMAGES}
        assert verify(store) == []


FULL = "run 'r' stopped: .*No space left on device.*the same command .* resumes it"


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk up to some bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - leave))
    return ballast


@pytest.mark.usefixtures("loopback_ray")
def test_a_full_disk(small_disk: Path, tiny_folder: Path, tmp_path: Path) -> None:
    images = hard_links(tmp_path / "images", 2000)
    out = small_disk / "out"
    job = quick_job(
        inputs=(str(images),), out=str(out), model=str(tiny_folder), run_id="r", rows_per_fragment=100, block_rows=50
    )
    ballast = fill(small_disk, leave=120_000)
    with pytest.raises(RunError, match=FULL):
        label(job)
    written = [name for name in os.listdir(out / layout.labels_folder("r")) if name.endswith(".parquet")]
    assert written, "what was written before is kept"
    ballast.unlink()
    assert label(job).rows
    assert exactly_once(out, "r", 2000)
    assert verify(Store(str(out))) == []
    (out / layout.success("r")).unlink()  # all is labeled, and only the commit is missing
    fill(small_disk, leave=8_192)
    with pytest.raises(RunError, match=FULL):
        label(job)
    ballast.unlink()
    assert label(job).rows
    assert exactly_once(out, "r", 2000)
    assert ray.is_initialized()

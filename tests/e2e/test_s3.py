"""The whole job over an object store: images in, table and annotated images out, resumed, verified."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow.parquet as pq

from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.runs.pipeline import label
from mlcls_ray.runs.verify import verify
from mlcls_ray.storage import layout
from mlcls_ray.storage.store import Store
from tests.conftest import encode, picture
from tests.s3_servers import BUCKET, filesystem


def test_bucket_to_bucket(s3_endpoint: str, tiny_folder: Path, fresh_ray: None) -> None:
    client = filesystem(s3_endpoint)
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    names = ["a/1.jpg", "a/2 %20#.jpg", "b/ü.jpg"]
    for number, name in enumerate(names):
        client.pipe_file(f"{base}/photos/{name}", encode(picture(seed=number)))
    client.pipe_file(f"{base}/photos/bad.jpg", b"<html>")
    client.pipe_file(f"{base}/photos/readme.md", b"not taken")
    s3 = S3Options(endpoint_url=s3_endpoint)
    job = LabelJob(
        inputs=(f"s3://{base}/photos",),
        out=f"s3://{base}/out",
        model=str(tiny_folder),
        run_id="r",
        annotate="all",
        s3=s3,
    )
    assert label(job).statuses == {"ok": 3, "not_an_image": 1}
    store = Store(job.out, s3)
    assert verify(store) == []
    assert len(store.names(layout.annotated_folder("r"))) == 3
    table = pq.read_table(f"{base}/out/{layout.labels_folder('r')}", filesystem=client)
    assert sorted(table.column("uri").to_pylist()) == sorted(
        f"s3://{base}/photos/{name}" for name in [*names, "bad.jpg"]
    )
    assert table.column("mtime").null_count == 0

    # the commit is lost, and one fragment: the same command makes up for both
    store.remove(layout.success("r"))
    (fragment,) = store.names(layout.labels_folder("r"))
    store.remove(f"{layout.labels_folder('r')}/{fragment}")
    assert label(job).rows == 4
    assert verify(store) == []

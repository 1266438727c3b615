"""Incremental runs: they label what is new or changed, everything when the model changed, and nothing when nothing did."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from benchmarks.tiny_network import export_tiny

from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.job.label import LabelResult, label
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.records import read_success, run_ids
from mlcls_ray.table.verify import verify
from tests.conftest import TINY_VOCABULARY, Handler, encode, picture, quick_job, reply
from tests.s3_servers import BUCKET, filesystem


def labeled(store: Store, result: LabelResult) -> list[str]:
    """The names of the inputs that a run labeled."""
    assert result.is_new
    success = read_success(store, result.run_id)
    assert success is not None
    rows = []
    for fragment in success.fragments:
        with store.open(f"{layout.labels_folder(success.run_id)}/{fragment.name}") as stream:
            rows += pq.read_table(stream, columns=["uri"]).column(0).to_pylist()
    return sorted(os.path.basename(uri) for uri in rows)


def vanished(store: Store, result: LabelResult) -> list[str]:
    with store.open(layout.vanished(result.run_id)) as stream:
        return [os.path.basename(uri) for uri in pq.read_table(stream).column("uri").to_pylist()]


def nights(job: LabelJob, put: Callable[[str, bytes], None], remove: Callable[[str], None], other_model: str) -> None:
    store = Store(job.out, job.s3)
    for number in range(5):
        put(f"{number}.jpg", encode(picture(seed=number)))
    put("bad.jpg", b"<html>")
    assert labeled(store, label(job)) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "bad.jpg"]
    assert not label(job).is_new
    assert len(run_ids(store)) == len(store.names(layout.RUNS)) == 1, "nothing new leaves nothing"

    put("new.jpg", encode(picture(seed=9)))
    put("1.jpg", encode(picture(80, 60, seed=10)))  # of another size: S3 has times in whole seconds, and maybe no etag
    remove("4.jpg")
    result = label(job)
    assert labeled(store, result) == ["1.jpg", "new.jpg"]
    assert vanished(store, result) == ["4.jpg"]
    assert not label(job).is_new

    remove("3.jpg")
    result = label(job)
    assert labeled(store, result) == [], "nothing new, but something vanished: no empty fragment"
    assert vanished(store, result) == ["3.jpg"]
    assert not label(job).is_new

    limited = LabelJob.model_validate({**job.model_dump(), "limit": 2})
    assert not label(limited).is_new, "inputs beyond a limit have not vanished"

    put("4.jpg", encode(picture(seed=44)))
    assert labeled(store, label(job)) == ["4.jpg"], "it is there again, and is another image"

    everything = LabelJob.model_validate({**job.model_dump(), "model": other_model})
    assert labeled(store, label(everything)) == ["0.jpg", "1.jpg", "2.jpg", "4.jpg", "bad.jpg", "new.jpg"]
    assert not label(everything).is_new
    assert verify(store) == []


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("other")
    export_tiny(folder, TINY_VOCABULARY, seed=1)
    return str(folder)


def test_nights_over_a_folder(loopback_ray: None, tmp_path: Path, tiny_folder: Path, other_model: str) -> None:
    photos = tmp_path / "photos, of 'mine'"
    photos.mkdir()
    job = quick_job(inputs=(str(photos),), out=str(tmp_path / "o'ut"), model=str(tiny_folder), incremental=True)
    nights(
        job, lambda name, data: (photos / name).write_bytes(data), lambda name: (photos / name).unlink(), other_model
    )  # type: ignore[arg-type, return-value]


def test_a_folder_that_is_not_mounted_has_not_lost_its_images(
    tmp_path: Path, tiny_folder: Path, loopback_ray: None
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(encode(picture()))
    job = quick_job(
        inputs=(str(tmp_path / "photos"),), out=str(tmp_path / "out"), model=str(tiny_folder), incremental=True
    )
    label(job)
    (tmp_path / "photos" / "1.jpg").unlink()
    with pytest.raises(UsageError, match="no image found"):
        label(job)


@pytest.mark.slow
def test_nights_over_a_bucket(s3_endpoint: str, loopback_ray: None, tiny_folder: Path, other_model: str) -> None:
    client = filesystem(s3_endpoint)
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    s3 = S3Options(endpoint_url=s3_endpoint)
    job = quick_job(
        inputs=(f"s3://{base}/photos",), out=f"s3://{base}/out", model=str(tiny_folder), incremental=True, s3=s3
    )
    nights(
        job,
        lambda name, data: client.pipe_file(f"{base}/photos/{name}", data),
        lambda name: client.rm_file(f"{base}/photos/{name}"),
        other_model,
    )


def test_transient_errors_are_tried_again(
    loopback_ray: None, tmp_path: Path, tiny_folder: Path, http_server: Callable[[Handler], str]
) -> None:
    fails = True

    def answer(request: SimpleHTTPRequestHandler) -> None:
        if request.path.startswith("/gone"):
            reply(request, b"", 404)
        elif fails:
            reply(request, b"", 503)
        else:
            reply(request, encode(picture()))

    base = http_server(answer)
    (tmp_path / "list.txt").write_text(f"{base}/shaky.jpg?token=s3cret&id=1\n{base}/gone.jpg\n")
    job = quick_job(
        inputs=(str(tmp_path / "list.txt"),),
        out=str(tmp_path / "out"),
        model=str(tiny_folder),
        incremental=True,
        fetch_attempts=1,
    )
    first = label(job)
    assert first.statuses == {"http_5xx": 1, "missing": 1}
    fails = False
    second = label(job)
    assert second.statuses == {"ok": 1}
    assert not label(job).is_new, "the signature is no part of the key"

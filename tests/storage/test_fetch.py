"""Fetching from real files and real S3 servers: each failure has its status, and sizes are bounded."""

from __future__ import annotations

import os
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from mlcls_ray.config import FetchOptions, S3Options
from mlcls_ray.errors import ImageError, Status
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.fetched import Fetched
from tests.conftest import Handler, reply
from tests.s3_servers import BUCKET, CREDENTIALS, filesystem

Serve = Callable[[Handler], str]


def fetcher(**changes: object) -> Fetcher:
    return Fetcher(FetchOptions(**{"max_bytes": 1000, "timeout_s": 2.0, "fetch_attempts": 1, **changes}))


def status_of(uri: str, **changes: object) -> Status:
    with pytest.raises(ImageError) as caught:
        fetcher(**changes).fetch(uri)
    assert str(caught.value)
    return caught.value.status


def test_local_files(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(b"123")
    fetched = fetcher().fetch(str(tmp_path / "a b.jpg"))
    assert fetched.image_bytes == b"123"
    assert fetched.mtime is not None
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * 1001)
    os.mkfifo(tmp_path / "fifo")
    assert status_of(str(tmp_path / "none")) == Status.MISSING
    assert status_of(str(tmp_path / "empty")) == Status.EMPTY
    assert status_of(str(tmp_path / "large")) == Status.TOO_LARGE
    assert status_of(str(tmp_path / "fifo")) == Status.UNSUPPORTED
    assert status_of(str(tmp_path)) == Status.UNSUPPORTED
    assert status_of("/a\0b") == Status.MISSING
    assert status_of("what://is/this") == Status.UNSUPPORTED


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_denied(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    assert status_of(str(tmp_path / "secret")) == Status.DENIED


def test_s3_objects(s3_endpoint: str) -> None:
    client = filesystem(s3_endpoint)
    for name, data in {"a b%41#.jpg": b"123", "empty.jpg": b"", "large.jpg": b"x" * 1001}.items():
        client.pipe_file(f"{BUCKET}/fetch/{name}", data)
    changes = {"s3": S3Options(endpoint_url=s3_endpoint)}
    assert fetcher(**changes).fetch(f"s3://{BUCKET}/fetch/a b%41#.jpg") == Fetched(b"123")
    assert status_of(f"s3://{BUCKET}/fetch/none.jpg", **changes) == Status.MISSING
    assert status_of(f"s3://{BUCKET}/fetch/empty.jpg", **changes) == Status.EMPTY
    assert status_of(f"s3://{BUCKET}/fetch/large.jpg", **changes) == Status.TOO_LARGE
    assert status_of("s3://no-such-bucket-here/x.jpg", **changes) == Status.MISSING


@pytest.mark.parametrize("s3_endpoint", ["moto"], indirect=True)
def test_s3_without_credentials(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem(s3_endpoint).pipe_file(f"{BUCKET}/public.jpg", b"123", ACL="public-read")
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    anonymous = fetcher(s3=S3Options(endpoint_url=s3_endpoint, anonymous=True))
    assert anonymous.fetch(f"s3://{BUCKET}/public.jpg").image_bytes == b"123"
    signed = {"s3": S3Options(endpoint_url=s3_endpoint, region="us-east-1")}
    assert status_of(f"s3://{BUCKET}/public.jpg", **signed) == Status.DENIED


def test_transient_failures_are_tried_again(http_server: Serve) -> None:
    requests: list[str] = []
    waits: list[float] = []

    def answer(request: SimpleHTTPRequestHandler) -> None:
        requests.append(request.path)
        if len(requests) < 3:
            reply(request, b"", 429, Retry_After="7")
        else:
            reply(request, b"image")

    base = http_server(answer)
    patient = Fetcher(FetchOptions(fetch_attempts=4), sleep=waits.append)
    assert patient.fetch(f"{base}/a.jpg").image_bytes == b"image"
    assert len(requests) == 3
    assert waits == [7.0, 7.0], "the server asked for seven seconds, the backoff alone is at most one"
    requests.clear()
    with pytest.raises(ImageError) as caught:
        Fetcher(FetchOptions(fetch_attempts=2), sleep=waits.append).fetch(f"{base}/b.jpg")
    assert caught.value.status == Status.HTTP_5XX
    assert len(requests) == 2


def test_permanent_failures_are_not_tried_again(http_server: Serve) -> None:
    requests: list[str] = []

    def answer(request: SimpleHTTPRequestHandler) -> None:
        requests.append(request.path)
        reply(request, b"", 404)

    assert status_of(f"{http_server(answer)}/a.jpg", fetch_attempts=4) == Status.MISSING
    assert len(requests) == 1


def test_an_empty_url(http_server: Serve) -> None:
    assert status_of(f"{http_server(lambda request: reply(request, b''))}/a.jpg") == Status.EMPTY

"""Fetching: each failure has its status; sizes and times are bounded. Real files, a real HTTP server, real S3 servers."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status
from mlcls_ray.storage import fetch
from mlcls_ray.storage.fetch import Fetched, Fetcher
from tests.conftest import Handler, reply
from tests.s3_servers import BUCKET, CREDENTIALS, filesystem

Serve = Callable[[Handler], str]


def fetcher(**changes: object) -> Fetcher:
    return Fetcher(**{"s3": S3Options(), "max_bytes": 1000, "timeout_s": 2.0, **changes})


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


def test_http_answers(http_server: Serve) -> None:
    def answer(request: SimpleHTTPRequestHandler) -> None:
        path = request.path.strip("/")
        if path.isdecimal():
            reply(request, b"no", int(path))
        elif path == "loop":
            reply(request, b"", 302, Location="/loop")
        elif path == "moved":
            reply(request, b"", 301, Location="/good?x=1")
        elif path == "empty":
            reply(request, b"")
        elif path == "large":
            reply(request, b"x" * 2000)
        elif path == "endless":
            request.send_response(200)
            request.end_headers()
            try:
                while True:
                    request.wfile.write(b"x" * 500)
            except OSError:
                return
        else:
            reply(request, b"image", ETag='"abc"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")

    base = http_server(answer)
    one = fetcher()
    fetched = one.fetch(f"{base}/moved")
    assert fetched == one.fetch(f"{base}/good?x=1")
    assert fetched.image_bytes == b"image"
    assert (fetched.etag, str(fetched.mtime)) == ("abc", "2026-01-01 00:00:00+00:00")
    expected = {
        "404": Status.MISSING, "410": Status.MISSING, "401": Status.DENIED, "403": Status.DENIED, "400": Status.HTTP_4XX,
        "429": Status.HTTP_5XX, "500": Status.HTTP_5XX, "503": Status.HTTP_5XX, "loop": Status.HTTP_4XX,
        "empty": Status.EMPTY, "large": Status.TOO_LARGE, "endless": Status.TOO_LARGE,
    }  # fmt: skip
    assert {path: status_of(f"{base}/{path}") for path in expected} == expected


def test_http_that_is_slow_lies_or_is_not_there(http_server: Serve) -> None:
    def answer(request: SimpleHTTPRequestHandler) -> None:
        if request.path == "/endless":
            request.send_response(200)
            request.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    request.wfile.write(b"x" * 65536)
        elif request.path == "/drip":
            request.send_response(200)
            request.end_headers()
            try:
                for _ in range(100):
                    request.wfile.write(b"x")
                    time.sleep(0.1)
            except OSError:
                return
        else:
            reply(request, b"short", Content_Length="500")
            request.close_connection = True

    base = http_server(answer)
    started = time.monotonic()
    assert status_of(f"{base}/drip", timeout_s=0.5) == Status.TIMEOUT
    assert time.monotonic() - started < 5
    assert status_of(f"{base}/short") == Status.TIMEOUT
    assert status_of(f"{base}/endless", timeout_s=20) == Status.TOO_LARGE
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert status_of(f"http://127.0.0.1:{unused.getsockname()[1]}/x") == Status.TIMEOUT
    assert status_of("http://") == Status.UNSUPPORTED


def test_s3_objects(s3_endpoint: str) -> None:
    client = filesystem(s3_endpoint)
    for name, data in {"a b%41#.jpg": b"123", "empty.jpg": b"", "large.jpg": b"x" * 1001}.items():
        client.pipe_file(f"{BUCKET}/fetch/{name}", data)
    one = fetcher(s3=S3Options(endpoint_url=s3_endpoint))
    assert one.fetch(f"s3://{BUCKET}/fetch/a b%41#.jpg") == Fetched(b"123")
    changes = {"s3": S3Options(endpoint_url=s3_endpoint)}
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
    asked: list[tuple[str, float]] = []

    def answer(request: SimpleHTTPRequestHandler) -> None:
        asked.append((request.path, time.monotonic()))
        if len(asked) < 3:
            reply(request, b"", 429, Retry_After="1")
        else:
            reply(request, b"image")

    base = http_server(answer)
    assert fetcher(attempts=4).fetch(f"{base}/a.jpg").image_bytes == b"image"
    waits = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(asked)]
    assert len(waits) == 2
    assert min(waits) >= 1.0, "the server asked for a second"
    asked.clear()
    assert status_of(f"{base}/b.jpg", attempts=2) == Status.HTTP_5XX
    assert len(asked) == 2


def test_permanent_failures_are_not_tried_again(http_server: Serve) -> None:
    asked: list[str] = []

    def answer(request: SimpleHTTPRequestHandler) -> None:
        asked.append(request.path)
        reply(request, b"", 404)

    assert status_of(f"{http_server(answer)}/a.jpg", attempts=4) == Status.MISSING
    assert len(asked) == 1


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "100.100.100.200", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"]
)
def test_metadata_addresses_are_refused_before_anything_is_sent(address: str) -> None:
    started = time.monotonic()
    assert status_of(f"http://{address}/latest/meta-data/") == Status.DENIED
    assert time.monotonic() - started < 1


def test_a_redirect_to_a_metadata_address_is_refused(http_server: Serve) -> None:
    base = http_server(lambda request: reply(request, b"", 302, Location="http://169.254.169.254/latest/"))
    assert status_of(f"{base}/a.jpg") == Status.DENIED


def test_a_name_that_leads_to_a_metadata_address_is_refused(
    http_server: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked on the connection itself: here loopback stands for such an address."""
    base = http_server(lambda request: reply(request, b"secret"))
    monkeypatch.setattr(fetch, "METADATA_ADDRESSES", frozenset({"127.0.0.1"}))
    assert status_of(base.replace("127.0.0.1", "localhost") + "/a.jpg") == Status.DENIED

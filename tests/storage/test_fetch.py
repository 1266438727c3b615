"""Fetching: each failure has its status; sizes and times are bounded. Real files, a real HTTP server, real S3 servers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status
from mlcls_ray.storage.fetch import Fetched, Fetcher
from tests.conftest import Handler, reply
from tests.s3_servers import BUCKET, filesystem

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
        if request.path == "/drip":
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

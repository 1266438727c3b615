"""Reading URLs from a real HTTP server: each failure has its status, and sizes and times are bounded."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from itertools import count

import httpx
import pytest

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.storage.http_reader import HttpReader
from mlcls_ray.storage.public_http import PublicTransport
from tests.conftest import Handler, reply

Serve = Callable[[Handler], str]


def status_of(url: str, reader: HttpReader | None = None) -> Status:
    with pytest.raises(ImageError) as caught:
        (reader or HttpReader(1000, timeout_s=2.0)).read(url)
    assert str(caught.value)
    return caught.value.status


def endless(request: SimpleHTTPRequestHandler) -> None:
    """Answer with bytes until the client hangs up."""
    request.send_response(200)
    request.end_headers()
    with contextlib.suppress(OSError):
        while True:
            request.wfile.write(b"x" * 500)


def test_answers(http_server: Serve) -> None:
    def answer(request: SimpleHTTPRequestHandler) -> None:
        path = request.path.strip("/")
        if path.isdecimal():
            reply(request, b"no", int(path))
        elif path == "loop":
            reply(request, b"", 302, Location="/loop")
        elif path == "moved":
            reply(request, b"", 301, Location="/good?x=1")
        elif path == "large":
            reply(request, b"x" * 2000)
        elif path == "endless":
            endless(request)
        else:
            reply(request, b"image", ETag='"abc"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")

    base = http_server(answer)
    reader = HttpReader(1000, timeout_s=20.0)
    fetched = reader.read(f"{base}/moved")
    assert fetched == reader.read(f"{base}/good?x=1")
    assert fetched.image_bytes == b"image"
    assert (fetched.etag, str(fetched.mtime)) == ("abc", "2026-01-01 00:00:00+00:00")
    expected = {
        "404": Status.MISSING, "410": Status.MISSING, "401": Status.DENIED, "403": Status.DENIED, "400": Status.HTTP_4XX,
        "429": Status.HTTP_5XX, "500": Status.HTTP_5XX, "503": Status.HTTP_5XX, "loop": Status.HTTP_4XX,
        "large": Status.TOO_LARGE, "endless": Status.TOO_LARGE,
    }  # fmt: skip
    assert {path: status_of(f"{base}/{path}", reader) for path in expected} == expected


def test_retry_after_is_told(http_server: Serve) -> None:
    base = http_server(lambda request: reply(request, b"", 503, Retry_After="12"))
    with pytest.raises(ImageError) as caught:
        HttpReader(1000, timeout_s=2.0).read(base)
    assert caught.value.retry_after_s == 12.0


def test_a_download_that_takes_too_long_is_given_up(http_server: Serve) -> None:
    """Each chunk arrives in time; it is the whole that takes too long. The clock goes on by one second a look."""
    seconds = count()
    reader = HttpReader(10**9, timeout_s=5.0, clock=lambda: float(next(seconds)))
    assert status_of(http_server(endless), reader) == Status.TIMEOUT


@pytest.mark.parametrize("is_public_only", [False, True])
def test_a_server_that_drips_its_headers_is_given_up(is_public_only: bool) -> None:
    """Each byte arrives long before any wait ends; it is the whole that takes too long."""
    address = "127.0.0.1"
    transport = PublicTransport(lambda host, port: address) if is_public_only else None
    given_up = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(10_000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not given_up.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server((address, 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        reader = HttpReader(1000, 0.5, is_public_only, transport)
        host = "photos.example" if is_public_only else address
        assert status_of(f"http://{host}:{server.getsockname()[1]}/x", reader) == Status.TIMEOUT
        given_up.set()
        thread.join(10)


def test_a_server_that_says_nothing_lies_or_is_not_there(http_server: Serve) -> None:
    def answer(request: SimpleHTTPRequestHandler) -> None:
        reply(request, b"short", Content_Length="500")
        request.close_connection = True

    assert status_of(http_server(answer)) == Status.TIMEOUT
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        assert status_of(url, HttpReader(1000, timeout_s=0.2)) == Status.TIMEOUT
    assert status_of(url) == Status.TIMEOUT, "nobody listens any more"
    assert status_of("http://") == Status.UNSUPPORTED


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "100.100.100.200", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"]
)
def test_metadata_addresses_are_refused_before_anything_is_sent(address: str) -> None:
    sent: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, content=b"secret")

    reader = HttpReader(1000, timeout_s=2.0, transport=httpx.MockTransport(handle))
    assert status_of(f"http://{address}/latest/meta-data/", reader) == Status.DENIED
    assert sent == []
    assert reader.read("http://192.0.2.1/a.jpg").image_bytes == b"secret", "this transport would have answered"


def test_a_redirect_to_a_metadata_address_is_refused(http_server: Serve) -> None:
    base = http_server(lambda request: reply(request, b"", 302, Location="http://169.254.169.254/latest/"))
    assert status_of(f"{base}/a.jpg") == Status.DENIED


def test_a_name_that_leads_to_a_metadata_address_is_refused(http_server: Serve) -> None:
    """It is checked on the connection itself. Here loopback stands for such an address."""
    base = http_server(lambda request: reply(request, b"secret"))
    reader = HttpReader(1000, timeout_s=2.0, refused_addresses=frozenset({"127.0.0.1"}))
    assert status_of(base.replace("127.0.0.1", "localhost") + "/a.jpg", reader) == Status.DENIED

"""URLs that strangers send lead to public addresses only."""

from __future__ import annotations

from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler

import pytest

from mlcls_ray.config import FetchOptions
from mlcls_ray.errors import ImageError, Status
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.http_reader import HttpReader
from mlcls_ray.storage.public_http import PublicTransport
from tests.conftest import Handler

NOT_PUBLIC = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "localhost",
)


def fetcher() -> Fetcher:
    return Fetcher(FetchOptions(max_bytes=10_000, timeout_s=5.0, fetch_attempts=1), is_public_only=True)


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(ImageError) as refused:
        fetcher().fetch_once(f"http://{host}:1/a.jpg")
    assert refused.value.status == Status.DENIED


def test_an_unknown_host() -> None:
    with pytest.raises(ImageError) as refused:
        fetcher().fetch_once("http://nowhere.invalid/a.jpg")
    assert refused.value.status == Status.MISSING


def test_it_connects_to_the_address_that_it_checked(http_server: Callable[[Handler], str]) -> None:
    """The test has no public server, so it replaces the look-up of names. A redirect is looked up again."""
    requests: list[tuple[str, str]] = []
    looked_up: list[str] = []

    def answer(request: SimpleHTTPRequestHandler) -> None:
        requests.append((request.headers["Host"], request.path))
        request.send_response(302 if request.path == "/here" else 200)
        if request.path == "/here":
            request.send_header("Location", "/there")
        request.end_headers()
        request.wfile.write(b"" if request.path == "/here" else b"bytes")

    def look_up(host: str, port: int) -> str:
        looked_up.append(host)
        return "127.0.0.1"

    port = http_server(answer).rpartition(":")[2]
    reader = HttpReader(10_000, 5.0, is_public_only=True, transport=PublicTransport(look_up))
    assert reader.read(f"http://photos.example:{port}/here").image_bytes == b"bytes"
    assert requests == [(f"photos.example:{port}", "/here"), (f"photos.example:{port}", "/there")]
    assert looked_up == ["photos.example"] * 2

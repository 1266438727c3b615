"""Connections that end early are tried again, also where no library does it by itself; a connection that stays lost is named."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler
from itertools import count
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.models.cache import open_model
from mlcls_ray.storage.connection import ATTEMPTS, patiently
from mlcls_ray.storage.inputs.listing import list_inputs
from mlcls_ray.storage.store import Store
from tests.conftest import Handler, reply
from tests.faulty_proxy import CUTS, faulty_proxy
from tests.s3_servers import BUCKET, filesystem

LARGE = 51 << 20
"""Bytes: s3fs reads more than 50 MiB in parts, at once, and tries none of them again by itself."""


def test_only_lost_connections_are_tried_again() -> None:
    for error, calls in ((ConnectionResetError("lost"), ATTEMPTS), (FileNotFoundError("none"), 1)):
        called, waits = count(), list[float]()

        def call(error: OSError = error, called: Iterator[int] = called) -> None:
            next(called)
            raise error

        with pytest.raises(type(error)):
            patiently(call, waits.append)
        assert (next(called), len(waits)) == (calls, calls - 1)


def test_a_large_object_whose_first_answers_are_cut(moto: str) -> None:
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    filesystem(moto).pipe_file(f"{base}/large.bin", bytes(LARGE))
    with faulty_proxy(moto, share=0.0, faults=("short", "fin")) as proxy:
        proxy.next_faults = ["short", "fin"]
        data = Store(f"s3://{base}", S3Options(endpoint_url=proxy.url)).read("large.bin")
        assert proxy.injected.total() == 2
    assert data == bytes(LARGE)


@pytest.mark.parametrize("cut", CUTS)
def test_the_first_write_and_listing_whose_answers_are_lost(moto: str, cut: str) -> None:
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    filesystem(moto).pipe_file(f"{base}/photos/a.jpg", b"123")
    with faulty_proxy(moto, share=0.0, faults=CUTS) as proxy:
        s3 = S3Options(endpoint_url=proxy.url)
        proxy.next_faults = [cut]
        Store(f"s3://{base}/out", s3).check_writable()
        proxy.next_faults = [cut, cut]
        assert len(list(list_inputs([f"s3://{base}/photos"], s3))) == 1
        assert proxy.injected == {cut: 3}


def cut_twice(body: bytes, always: bool = False) -> Handler:
    """Answer twice, or always, with half of the body."""
    number = count()

    def answer(request: SimpleHTTPRequestHandler) -> None:
        if request.command == "HEAD" or (next(number) >= 2 and not always):
            reply(request, body)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2])
        request.close_connection = True

    return answer


def test_a_list_on_a_web_server(http_server: Callable[[Handler], str]) -> None:
    body = b"https://example.com/1.jpg\n" * 4000
    assert len(list(list_inputs([f"{http_server(cut_twice(body))}/list.txt"], S3Options()))) == 4000
    with pytest.raises(UsageError, match="cannot be listed: .*not completed"):
        list(list_inputs([f"{http_server(cut_twice(body, always=True))}/list.txt"], S3Options()))


def test_a_model_on_s3(moto: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path))
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    filesystem(moto).pipe({f"{base}/{path.name}": path.read_bytes() for path in tiny_folder.iterdir()})
    with faulty_proxy(moto, share=0.3, faults=("short", "fin")) as proxy:
        assert open_model(f"s3://{base}", S3Options(endpoint_url=proxy.url)).vocabulary
        assert proxy.injected

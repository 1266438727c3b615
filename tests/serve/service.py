"""A service in its own process, started by `mlcls serve`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from mlcls_ray.serve.config import TOKEN_VARIABLE
from mlcls_ray.serve.wire import PATH
from tests.conftest import MLCLS

START_S = 240.0


class Service(NamedTuple):
    """A running service: a client for it, and its process."""

    client: httpx.Client
    process: subprocess.Popen[str]
    url: str

    def post(self, **body: object) -> httpx.Response:
        return self.client.post(PATH, json=body)


@contextlib.contextmanager
def serving(log: Path, *flags: object, token: str | None = None) -> Iterator[Service]:
    """Start a service, wait until it answers, and stop it by SIGTERM. It must then end by itself with exit code 0."""
    port = free_port()
    env = {**os.environ, **({TOKEN_VARIABLE: token} if token else {})}
    with log.open("w") as stream:
        process = subprocess.Popen(
            [MLCLS, "serve", "--port", str(port), *map(str, flags)], env=env, stdout=stream, stderr=stream, text=True
        )
        url = f"http://127.0.0.1:{port}"
        client = httpx.Client(base_url=url, timeout=60)
        try:
            _wait_until_healthy(client, process, log)
            yield Service(client, process, url)
        finally:
            client.close()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(90) == 0, log.read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(client: httpx.Client, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health").status_code == 200:
                return
        time.sleep(0.3)
    raise AssertionError(f"no service: {log.read_text()}")

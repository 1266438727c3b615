"""Slow tests of the service: ten minutes of good and bad requests, in which memory does not grow; and a replica that is killed."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from mlcls_ray.serve.wire import PATH
from tests.serve.service import Service, serving
from tests.serve.test_service import BAD_REQUESTS, text_of

SOAK_S = 600
CLIENTS = 8
SETTLED_S = 60
GROWTH_MB = 100
REPLACED_S = 120


def memory_mb(service: Service) -> float:
    """Add up the resident memory of the service's process and its descendants, in MB of 2**20 bytes."""
    parent = psutil.Process(service.process.pid)
    processes = [parent, *parent.children(recursive=True)]
    return sum(process.memory_info().rss for process in processes if process.is_running()) / 2**20


@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 240)
def test_ten_minutes(demo: Path, tmp_path: Path) -> None:
    photographs = [text_of(path.read_bytes()) for path in sorted(demo.glob("*.jpg"))]
    requests = [({"image": text, "visualize": number % 2 == 0}, 200) for number, text in enumerate(photographs)]
    requests += [
        (body, code) for name, (body, code, _) in BAD_REQUESTS.items() if name not in ("too many pixels", "length")
    ]
    end = time.monotonic() + SOAK_S
    with serving(tmp_path / "log", "--model", "starter") as service:

        def client(number: int) -> list[tuple[int, int]]:
            unexpected = []
            with httpx.Client(base_url=service.url, timeout=60) as http:
                while time.monotonic() < end:
                    body, expected = requests[number % len(requests)]
                    number += 1
                    code = http.post(PATH, json=body).status_code
                    if code != expected:
                        unexpected.append((code, expected))
            return unexpected

        with ThreadPoolExecutor(CLIENTS) as clients:
            running = [clients.submit(client, number * 3) for number in range(CLIENTS)]
            time.sleep(SETTLED_S)
            settled = memory_mb(service)
            failures = [future.result() for future in running]
        print(f"memory {settled:.0f} MB after {SETTLED_S} s, {memory_mb(service):.0f} MB after {SOAK_S} s")
        assert [failure for client_failures in failures for failure in client_failures] == []
        assert memory_mb(service) - settled < GROWTH_MB


@pytest.mark.slow
def test_a_killed_replica_is_replaced_and_listens_on_the_same_port(
    demo: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    image = text_of((demo / "cat.jpg").read_bytes())
    with serving(tmp_path / "log", "--model", tiny_folder, "--engine", "openvino", "--precision", "fp32") as service:
        before = service.post(image=image, visualize=False).json()["result"]
        family = psutil.Process(service.process.pid).children(recursive=True)
        (replica,) = (process for process in family if "ServeReplica" in " ".join(process.cmdline()))
        replica.kill()
        replica.wait(10)
        deadline = time.monotonic() + REPLACED_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                assert service.post(image=image, visualize=False).json()["result"] == before
                break
            assert time.monotonic() < deadline, "no replica took its place"
            time.sleep(0.5)

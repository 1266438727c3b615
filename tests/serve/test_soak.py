"""Ten minutes of good and bad requests: nothing fails that is not the client's fault, and memory stays flat."""

from __future__ import annotations

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


def memory_mb(service: Service) -> float:
    """Of the service's own process and all below it."""
    family = [psutil.Process(service.process.pid), *psutil.Process(service.process.pid).children(recursive=True)]
    return sum(process.memory_info().rss for process in family if process.is_running()) / 2**20


@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 240)
def test_ten_minutes(demo: Path, tmp_path: Path) -> None:
    photographs = [text_of(path.read_bytes()) for path in sorted(demo.glob("*.jpg"))]
    asked = [({"image": text, "visualize": number % 2 == 0}, 200) for number, text in enumerate(photographs)]
    asked += [
        (body, code) for name, (body, code, _) in BAD_REQUESTS.items() if name not in ("too many pixels", "length")
    ]
    end = time.monotonic() + SOAK_S
    with serving(tmp_path / "log", "--model", "starter") as service:

        def client(number: int) -> list[tuple[int, int]]:
            wrong = []
            with httpx.Client(base_url=service.url, timeout=60) as own:
                while time.monotonic() < end:
                    body, expected = asked[number % len(asked)]
                    number += 1
                    code = own.post(PATH, json=body).status_code
                    if code != expected:
                        wrong.append((code, expected))
            return wrong

        with ThreadPoolExecutor(CLIENTS) as clients:
            running = [clients.submit(client, number * 3) for number in range(CLIENTS)]
            time.sleep(SETTLED_S)
            settled = memory_mb(service)
            answers = [one.result() for one in running]
        print(f"memory {settled:.0f} MB after {SETTLED_S} s, {memory_mb(service):.0f} MB after {SOAK_S} s")
        assert [wrong for one in answers for wrong in one] == []
        assert memory_mb(service) - settled < GROWTH_MB

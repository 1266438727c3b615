"""The service against PaddleX's own server: the same model folder, the same 16 clients, one after the other. See scripts/bench."""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
PADDLEX_PATH = "/multilabel-image-classification"
WARM_UP_S = 5.0
START_S = 180.0


class Load(NamedTuple):
    """Answers a second, milliseconds at the median and the 99th percentile, and answers that were not 200."""

    per_s: float
    median_ms: float
    p99_ms: float
    failed: int


def bodies(count: int, visualize: bool) -> list[bytes]:
    folder = ROOT.parent / "shared/data/coco_mini/images"
    photographs = sorted((folder if folder.is_dir() else ROOT / "mlcls_ray/demo").glob("*.jpg"))[:count]
    return [
        json.dumps({"image": base64.b64encode(path.read_bytes()).decode(), "visualize": visualize}).encode()
        for path in photographs
    ]


def load(port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    """Each client asks again as soon as it is answered; what is answered in the warm-up is not counted."""
    took: list[float] = []
    failed: list[int] = []
    began = time.monotonic() + WARM_UP_S
    end = began + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        position = number
        while (sent := time.monotonic()) < end:
            connection.request(
                "POST", PADDLEX_PATH, requests[position % len(requests)], {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            answer.read()
            position += clients
            if sent >= began:
                took.append(time.monotonic() - sent)
                if answer.status != 200:
                    failed.append(answer.status)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took.sort()
    return Load(
        len(took) / seconds,
        1000 * statistics.median(took),
        1000 * took[min(len(took) - 1, int(len(took) * 0.99))],
        len(failed),
    )


def measure(command: list[str], port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"does not serve: {' '.join(command)}")
            time.sleep(0.5)
        return load(port, requests, clients, seconds)
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        for one in family:
            if one.is_running():
                one.kill()


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="PP-LCNet_x1_0_ML", help="untrained, or `starter`")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--visualize", action="store_true")
    told = parser.parse_args()
    sys.path.append(str(ROOT / "scripts"))
    from comparison.parity import make_model

    work = ROOT / "results/parity"
    work.mkdir(parents=True, exist_ok=True)
    folder = make_model(told.model, work)
    requests = bodies(200, told.visualize)
    name = yaml.safe_load((folder / "inference.yml").read_text())["Global"]["model_name"]
    pipeline = work / "serve.yaml"
    module = {
        "module_name": "image_multilabel_classification",
        "model_name": name,
        "model_dir": str(folder),
        "batch_size": 1,
    }
    pipeline.write_text(
        yaml.safe_dump(
            {
                "pipeline_name": "image_multilabel_classification",
                "SubModules": {"ImageMultiLabelClassification": module},
            }
        )
    )
    paddlex = [str(ROOT / ".venv-paddlex/bin/paddlex"), "--serve", "--pipeline", str(pipeline), "--host", "127.0.0.1"]
    ours = [str(ROOT / ".venv/bin/mlcls"), "serve", "--model", str(folder)]
    servers = {
        "PaddleX 3.7.2": [*paddlex, "--device", "cpu", "--port"],
        "mlcls serve, fp32 paddle": [*ours, "--engine", "paddle", "--port"],
        "mlcls serve, fp32 openvino": [*ours, "--engine", "openvino", "--port"],
        "mlcls serve, bf16 openvino": [*ours, "--engine", "openvino", "--precision", "bf16", "--port"],
    }
    found: dict[str, list[Load]] = {name: [] for name in servers}
    for repeat in range(told.repeats):
        for number, (name, command) in enumerate(servers.items()):
            port = 18200 + 10 * repeat + number
            found[name].append(measure([*command, str(port)], port, requests, told.clients, told.seconds))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    base = statistics.median(one.per_s for one in found["PaddleX 3.7.2"])
    print(
        f"| {told.model}, {told.clients} clients | answers/s | median ms | p99 ms | failed | ÷ PaddleX |\n|---|---|---|---|---|---|"
    )
    for name, loads in found.items():
        per_s, median_ms, p99_ms = (statistics.median(column) for column in list(zip(*loads, strict=True))[:3])
        failed = sum(one.failed for one in loads)
        print(f"| {name} | {per_s:.1f} | {median_ms:.0f} | {p99_ms:.0f} | {failed} | {per_s / base:.2f} |")


if __name__ == "__main__":
    main()

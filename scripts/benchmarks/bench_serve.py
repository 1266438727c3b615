"""The service against PaddleX's own server, and against what decode and score allow: the same model folder, the same 16 clients, one after
the other. See scripts/bench. `--without-paddlex` leaves PaddleX out; `--code FOLDER` adds the service of another checkout.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
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
    """Answers a second, milliseconds at the median and the 99th percentile, answers that were not 200, and core-ms for each answer."""

    per_s: float
    median_ms: float
    p99_ms: float
    failed: int
    core_ms: float


def photographs(work: Path, count: int) -> Path:
    """A folder with links to the images that the clients send."""
    source = ROOT.parent / "shared/data/coco_mini/images"
    folder = work / "photographs"
    folder.mkdir(exist_ok=True)
    for path in sorted((source if source.is_dir() else ROOT / "mlcls_ray/demo").glob("*.jpg"))[:count]:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return folder


def bodies(folder: Path, visualize: bool) -> list[bytes]:
    return [
        json.dumps({"image": base64.b64encode(path.read_bytes()).decode(), "visualize": visualize}).encode()
        for path in sorted(folder.iterdir())
    ]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its descendants until now."""
    total = 0.0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:2])
    return total


def load(pid: int, port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
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
    time.sleep(WARM_UP_S)
    cpu_began = cpu_s(pid)
    time.sleep(max(0.0, end - time.monotonic()))
    used = cpu_s(pid) - cpu_began
    for thread in threads:
        thread.join()
    took.sort()
    return Load(
        len(took) / seconds,
        1000 * statistics.median(took),
        1000 * took[min(len(took) - 1, int(len(took) * 0.99))],
        len(failed),
        1000 * used / len(took),
    )


def measure(
    command: list[str], port: int, requests: list[bytes], clients: int, seconds: float, code: Path = ROOT
) -> Load:
    environment = {**os.environ, "PYTHONPATH": str(code)}
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(
            command, stdout=nowhere, stderr=nowhere, start_new_session=True, cwd=code, env=environment
        )
    try:
        deadline = time.monotonic() + START_S
        while not healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"does not serve: {' '.join(command)}")
            time.sleep(0.5)
        return load(process.pid, port, requests, clients, seconds)
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
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
    parser.add_argument("--without-paddlex", action="store_true")
    parser.add_argument("--engines", nargs="+", default=["paddle/fp32", "openvino/fp32", "openvino/bf16"])
    parser.add_argument("--code", type=Path, action="append", default=[], help="another checkout to measure as well")
    told = parser.parse_args()
    sys.path.append(str(ROOT / "scripts"))
    from comparison.parity import make_model

    work = ROOT / "results/parity"
    work.mkdir(parents=True, exist_ok=True)
    folder = make_model(told.model, work)
    images = photographs(work, 200)
    requests = bodies(images, told.visualize)
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
    python = str(ROOT / ".venv/bin/python")
    found: dict[str, list[Load]] = {}
    port = 18200

    def run(name: str, command: list[str], code: Path = ROOT) -> None:
        nonlocal port
        port += 1
        result = measure([*command, "--port", str(port)], port, requests, told.clients, told.seconds, code)
        found.setdefault(name, []).append(result)
        print(name, result, file=sys.stderr, flush=True)

    for _ in range(told.repeats):
        if not told.without_paddlex:
            run("PaddleX 3.7.2", [*paddlex, "--device", "cpu"])
        for engine, _, precision in (name.partition("/") for name in told.engines):
            ceiling = [str(ROOT / "scripts/benchmarks/serve_ceiling.py"), str(folder), engine, precision, str(images)]
            done = subprocess.run([python, *ceiling, str(told.seconds)], capture_output=True, text=True, check=True)
            per_s, core_ms = map(float, done.stdout.split()[-2:])
            found.setdefault(f"decode and score, {engine}/{precision}", []).append(Load(per_s, 0, 0, 0, core_ms))
            for code in (*told.code, ROOT):
                flags = ["--model", str(folder), "--engine", engine, "--precision", precision]
                name = "mlcls serve" if code == ROOT else f"mlcls serve of {code.name}"
                run(f"{name}, {engine}/{precision}", [python, "-m", "mlcls_ray.cli", "serve", *flags], code.resolve())
    base = statistics.median(one.per_s for one in found[next(iter(found))])
    print(
        f"| {told.model}, {told.clients} clients | a second | median ms | p99 ms | failed | core-ms each | ÷ the first |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, loads in found.items():
        per_s, median_ms, p99_ms, _, core_ms = (statistics.median(column) for column in zip(*loads, strict=True))
        failed = sum(one.failed for one in loads)
        print(
            f"| {name} | {per_s:.1f} | {median_ms:.0f} | {p99_ms:.0f} | {failed} | {core_ms:.1f} | {per_s / base:.2f} |"
        )


if __name__ == "__main__":
    main()

"""`ray job submit` to a cluster that was started by hand with a token, from and to an S3 server."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.verify import verify
from tests.conftest import MLCLS, ROOT, encode, picture, run_cli, run_installed
from tests.s3_servers import BUCKET, filesystem, free_port

RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def cluster(s3_endpoint: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head node on loopback with token authentication; yields the client's environment."""
    gcs, dashboard, client, metrics = free_port(), free_port(), free_port(), free_port()
    environment = {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "AWS_ENDPOINT_URL": s3_endpoint,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # its `python` has what the job needs
        "RAY_metrics_report_interval_ms": "300", "METRICS": str(metrics),
        "RAY_TMPDIR": "/tmp/r" + secrets.token_hex(3),  # a socket's path has 107 bytes
    }  # fmt: skip
    os.makedirs(environment["RAY_TMPDIR"])
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={gcs}", "--node-ip-address=127.0.0.1",
         "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--metrics-export-port={metrics}",
         f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}",
         f"--ray-client-server-port={client}",
         "--include-dashboard=true", f"--temp-dir={environment['RAY_TMPDIR']}", "--disable-usage-stats"],
        env=environment, stdout=(tmp_path / "head.log").open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield {
            **environment,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "CLUSTER": f"127.0.0.1:{gcs}",
        }
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # a process group of its own: the head and all it started
        head.wait(timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A working directory to ship: jobs/ and a package that prints where it runs from."""
    folder = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.pdiparams")  # the job has a model of its own
    for name in ("jobs", "mlcls_ray"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    with (folder / "mlcls_ray" / "__init__.py").open("a") as source:
        source.write("\nprint('package:', __file__)\n")
    return folder


def submit(cluster: dict[str, str], checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        RAY,
        "job",
        "submit",
        "--working-dir",
        str(checkout),
        "--",
        sys.executable,
        "jobs/label_images.py",
        *words,
    ]
    for _ in range(30):  # until the head listens
        done = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=240)
        if "Failed to connect" not in done.stderr and "Connection refused" not in done.stderr:
            break
    return done


@pytest.mark.slow
@pytest.mark.parametrize("s3_endpoint", ["juicefs"], indirect=True)
def test_submit_with_a_token(cluster: dict[str, str], s3_endpoint: str, checkout: Path, tiny_folder: Path) -> None:
    client = filesystem(s3_endpoint)
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    for number in range(10):
        client.pipe_file(f"{base}/photos/{number}.jpg", encode(picture(seed=number)))
    words = (f"s3://{base}/photos", "--out", f"s3://{base}/out", "--model", str(tiny_folder), "--run-id", "submitted")
    refused = subprocess.run(
        [RAY, "job", "list"],
        env={**cluster, "RAY_AUTH_TOKEN": "wrong" * 8},
        capture_output=True,
        text=True,
        timeout=120,
    )
    done = submit(cluster, checkout, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert refused.returncode != 0, "the cluster asks for its token"
    assert "10 images: 10 ok" in done.stdout
    assert re.search(r"package: \S+/_ray_pkg_\w+/mlcls_ray/__init__.py", done.stdout), "the shipped package ran"
    store = Store(f"s3://{base}/out", S3Options(endpoint_url=s3_endpoint))
    assert verify(store) == []
    table = pq.read_table(f"{base}/out/{layout.labels_folder('submitted')}", filesystem=client)
    assert sorted(table.column("row_id").to_pylist()) == list(range(10))
    wrong = submit(cluster, checkout, f"s3://{base}/photos", "--out", f"s3://{base}/out", "--model", "PP-LCNet")
    assert wrong.returncode != 0
    assert "unknown model 'PP-LCNet': did you mean" in wrong.stdout

    by_address = run_installed(
        "label", ROOT / "mlcls_ray" / "demo" / "cat.jpg", "--out", f"s3://{base}/out", "--model", tiny_folder,
        env={**cluster, "RAY_ADDRESS": cluster["CLUSTER"]},
    )  # fmt: skip
    assert "1 image: 1 ok" in by_address.stdout


@pytest.mark.parametrize("s3_endpoint", ["moto"], indirect=True)
def test_mlcls_submit_and_the_metrics(
    cluster: dict[str, str], s3_endpoint: str, tiny_folder: Path, tmp_path: Path
) -> None:
    """The command by which an operator submits: the job's log and exit code come back, and Prometheus finds its numbers."""
    client = filesystem(s3_endpoint)
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    for number in range(30):
        client.pipe_file(f"{base}/photos/{number}.jpg", encode(picture(seed=number)))
    client.pipe_file(f"{base}/photos/bad.jpg", b"no image")
    config = tmp_path / "job.yaml"
    config.write_text(f"model: {tiny_folder}\nbatch_size: 1\nworkers: 1\nengine: openvino\nprecision: fp32\n")
    words = ("submit", config, f"s3://{base}/photos", "--out", f"s3://{base}/out", "--run-id", "night")
    seen: set[str] = set()
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(0.3):
            with contextlib.suppress(OSError):
                page = (
                    urllib.request.urlopen(f"http://127.0.0.1:{cluster['METRICS']}/metrics", timeout=5).read().decode()
                )
                seen.update(line for line in page.splitlines() if line.startswith("ray_mlcls_"))

    wait_for(cluster)
    scraping = threading.Thread(target=scrape, daemon=True)
    scraping.start()
    try:
        done = run_installed(*words, env=cluster)
    finally:
        stop.set()
        scraping.join()
    assert "31 images: 30 ok, 1 not_an_image" in done.stdout
    assert "submitted as " in done.stderr
    assert verify(Store(f"s3://{base}/out", S3Options(endpoint_url=s3_endpoint))) == []
    metrics = "\n".join(sorted(seen))
    for name in ("images_total", "read_bytes_total", "stage_seconds_total"):
        assert f"ray_mlcls_{name}" in metrics, metrics
    assert 'status="not_an_image"' in metrics
    assert 'stage="score"' in metrics
    assert 'run_id="night"' in metrics
    refused = run_installed(*words, env={**cluster, "RAY_AUTH_TOKEN": "wrong" * 8}, check=2)
    assert "did not take the job" in refused.stderr
    # These two have nothing to label, so that their drivers end soon.
    nothing = ("submit", config, f"s3://{base}/nothing", "--out", f"s3://{base}/out")
    leave_while_it_runs([*nothing, "--address", cluster["RAY_API_SERVER_ADDRESS"]], cluster)
    wrong = run_installed(*nothing, env=cluster, check=2)
    assert "no image found" in wrong.stdout


@pytest.mark.slow
@pytest.mark.parametrize("s3_endpoint", ["moto"], indirect=True)
def test_submit_without_following(cluster: dict[str, str], tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    wait_for(cluster)
    words = ("submit", demo / "cat.jpg", "--out", tmp_path / "out", "--model", tiny_folder, "--no-follow")
    (job,) = run_installed(*words, env=cluster).stdout.splitlines()
    assert job.startswith("raysubmit_")


def leave_while_it_runs(words: list[object], cluster: dict[str, str]) -> None:
    """Ctrl-C while the log is followed: the job goes on, and the command says so."""
    with subprocess.Popen([MLCLS, *map(str, words)], env=cluster, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any(line.startswith("submitted as ") for line in said)
        time.sleep(1)  # the log is asked for in the same moment
        process.send_signal(signal.SIGINT)
        rest = "".join(said)
    assert process.returncode == 130
    assert re.search(r"job (raysubmit_\w+) goes on; .* `ray job logs --follow \1` shows its log", rest), rest


def wait_for(cluster: dict[str, str]) -> None:
    """Until the head's dashboard answers."""
    headers = {"Authorization": f"Bearer {cluster['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{cluster['RAY_API_SERVER_ADDRESS']}/api/jobs/", headers=headers)
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.3)


def test_no_cluster() -> None:
    words = ("submit", ROOT / "configs/label_folder.yaml")
    assert "no cluster: give --address" in run_cli(*words, check=2).stderr
    message = run_cli(*words, "--address", "http://127.0.0.1:9", check=2).stderr
    assert "the cluster at 'http://127.0.0.1:9' did not take the job" in message

"""`ray job submit` to a cluster that was started by hand with a token, from and to an S3 server."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.runs.verify import verify
from mlcls_ray.storage import layout
from mlcls_ray.storage.store import Store
from tests.conftest import ROOT, encode, picture, run_cli
from tests.s3_servers import BUCKET, filesystem, free_port

RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def cluster(s3_endpoint: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head node on loopback with token authentication; yields the client's environment."""
    gcs, dashboard, client = free_port(), free_port(), free_port()
    environment = {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "AWS_ENDPOINT_URL": s3_endpoint,
        "RAY_TMPDIR": "/tmp/r" + secrets.token_hex(3),  # a socket's path has 107 bytes
    }  # fmt: skip
    os.makedirs(environment["RAY_TMPDIR"])
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={gcs}", "--node-ip-address=127.0.0.1",
         "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
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


def submit(cluster: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        RAY,
        "job",
        "submit",
        "--working-dir",
        str(ROOT / "jobs"),
        "--",
        sys.executable,
        "label_images.py",
        *words,
    ]
    for _ in range(30):  # until the head listens
        done = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=240)
        if "Failed to connect" not in done.stderr and "Connection refused" not in done.stderr:
            break
    return done


@pytest.mark.parametrize("s3_endpoint", ["juicefs"], indirect=True)
def test_submit_with_a_token(cluster: dict[str, str], s3_endpoint: str, tiny_folder: Path) -> None:
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
    done = submit(cluster, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert refused.returncode != 0, "the cluster asks for its token"
    assert "10 images: 10 ok" in done.stdout
    store = Store(f"s3://{base}/out", S3Options(endpoint_url=s3_endpoint))
    assert verify(store) == []
    table = pq.read_table(f"{base}/out/{layout.labels_folder('submitted')}", filesystem=client)
    assert sorted(table.column("row_id").to_pylist()) == list(range(10))
    wrong = submit(cluster, f"s3://{base}/photos", "--out", f"s3://{base}/out", "--model", "PP-LCNet")
    assert wrong.returncode != 0
    assert "unknown model 'PP-LCNet': did you mean" in wrong.stdout

    by_address = run_cli(
        "label", ROOT / "mlcls_ray" / "demo" / "cat.jpg", "--out", f"s3://{base}/out", "--model", tiny_folder,
        env={**cluster, "RAY_ADDRESS": cluster["CLUSTER"]},
    )  # fmt: skip
    assert "1 image: 1 ok" in by_address.stdout

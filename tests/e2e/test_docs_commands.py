"""Each command that README.md and docs/ show is run, in the order of the page, as a reader would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests import s3_servers
from tests.conftest import ROOT, encode, picture

pytestmark = pytest.mark.slow

NOT_HERE = {
    "scripts/label": "e2e/test_first_command.py runs it",
    "scripts/test": "it is what runs this",
    ".venv/bin/mlcls serve": "it runs until it is stopped; serving/ runs it",
    "curl -s http://127.0.0.1": "wants that service; serving/ asks it",
    ".venv/bin/mlcls submit": "wants a cluster with Ray Jobs; e2e/test_submit.py runs it",
    "mlcls submit": "the same",
    "ray job submit": "the same",
    "export RAY_AUTH_MODE": "the same",
    "ray start": "the same",
    "RAY_ADDRESS=10.0.0.5:6379": "wants a cluster; faults/test_nodes.py has one",
    "kubectl": "no Kubernetes here; test_deploy.py checks the manifests against its schemas",
    "python3.10 -m venv lite": "Paddle Lite's packages are made for Python 3.10",
    "lite/bin/pip": "the same",
    "export MLCLS_LITE_PYTHON": "the same",
    ".venv/bin/mlcls export PP-LCNet_x1_0_ML --format paddle-lite": "the same",
}
"""What these tests cannot run, by how it begins, and why."""


def commands() -> list[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [
        block for page in pages for block in re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL)
    ]
    return [line for block in blocks for line in re.findall(r"^\$ (.*)$", block, flags=re.MULTILINE)]


@pytest.fixture
def sandbox(demo: Path, tmp_path: Path, moto: str) -> Path:
    """A checkout as the reader has it, a home with pictures, a bucket, and a small data set."""
    for name in (".venv", "configs", "jobs"):
        (tmp_path / name).symlink_to(ROOT / name)
    photos = sorted(demo.glob("*.jpg"))
    shutil.copytree(demo, tmp_path / "home/Pictures", ignore=shutil.ignore_patterns("*.tsv"))
    shutil.copytree(demo, tmp_path / "photos", ignore=shutil.ignore_patterns("*.tsv"))
    shutil.copy(photos[2], tmp_path / "photo.jpg")
    bucket = s3_servers.filesystem(moto)
    bucket.mkdir("bucket")
    for path in photos[:3]:
        bucket.put_file(str(path), f"bucket/photos/{path.name}")
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "label.txt").write_text("0 dark\n1 bright\n")
    random = np.random.default_rng(0)
    for split, numbers in {"train": range(12), "dev": range(12, 18)}.items():
        lines = []
        for number in numbers:
            is_bright = bool(random.random() > 0.5)
            image = picture(seed=number).point(lambda value, add=is_bright: value // 2 + 127 * add)
            (data / f"images/{number}.jpg").write_bytes(encode(image))
            lines.append(f"images/{number}.jpg\t{int(not is_bright)},{int(is_bright)}\n")
        (data / f"{split}.txt").write_text("".join(lines))
    task = {
        "data": {"image": "photos/cat.jpg", "uri": str(tmp_path / "photos/cat.jpg")},
        "annotations": [
            {"result": [{"from_name": "labels", "to_name": "image", "type": "choices", "value": {"choices": ["dark"]}}]}
        ],
    }
    (tmp_path / "export.json").write_text(json.dumps([task]))
    return tmp_path


@pytest.mark.timeout(900)
def test_in_the_order_of_the_pages(sandbox: Path, tiny_folder: Path, moto: str) -> None:
    environment = {
        **os.environ,
        **s3_servers.CREDENTIALS,
        "AWS_ENDPOINT_URL": moto,
        "HOME": str(sandbox / "home"),
        "COLUMNS": "120",
    }
    wanted = [line for line in commands() if not any(line.startswith(one) for one in NOT_HERE)]
    # The run that the analyst's page compares with is made on the operator's.
    wanted.sort(key=lambda line: "--run-id monday" not in line)
    assert len(wanted) > 18
    failed = []
    for line in wanted:
        told = line.replace("PP-LCNet_x1_0_ML", str(tiny_folder)).replace(
            "person=0.7", "person=0.7" if "relabel" in line else "cat=0.7"
        )
        done = subprocess.run(
            ["bash", "-c", told], cwd=sandbox, env=environment, capture_output=True, text=True, timeout=600
        )
        if done.returncode or "Traceback" in done.stderr:
            failed.append(f"$ {line}\nexit code {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}")
    assert not failed, "\n\n".join(failed)


def test_each_reason_is_still_needed() -> None:
    shown = commands()
    for beginning in NOT_HERE:
        assert any(line.startswith(beginning) for line in shown), beginning

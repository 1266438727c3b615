"""Each command that README.md and docs/ show is run, page by page and in the order of the page, as a reader would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests import s3_servers
from tests.conftest import ROOT, encode, picture, run_installed
from tests.pages import WRITTEN, console_commands

pytestmark = pytest.mark.slow

NOT_RUN = {
    "scripts/label": "e2e/test_first_command.py runs it",
    "pip install mlcls-ray": "not released yet",
    "pip install 'mlcls-ray": "the same",
    "pip uninstall": "it would take this environment apart",
    "sudo ": "it would change the machine",
    "nvidia-smi": "needs a card",
    "python3 -m venv gpu-env": "for the packages of a card",
    ". gpu-env": "the same",
    "mlcls doctor --device gpu": "needs a card; job/test_doctor.py runs it",
    "mlcls label photos --out out --device gpu": "needs a card",
    "exiftool": "another project's program",
    "mlcls browse": "it runs until it is stopped; tests/explore/browse runs it",
    "mlcls serve": "it runs until it is stopped; tests/serve runs it",
    '(printf \'{"image": "\'': "needs that service; serve/test_service.py runs it",
    "curl -s": "the same",
    "mlcls submit": "needs a cluster with Ray Jobs; e2e/test_submit.py runs it",
    "ray job submit": "the same",
    "export RAY_AUTH_MODE": "the same",
    "ray start": "the same",
    "RAY_ADDRESS=10.0.0.5:6379": "needs a cluster; faults/test_nodes.py has one",
    "kubectl": "no Kubernetes here; test_deploy.py checks the manifests against its schemas",
    "python3.10 -m venv lite": "Paddle Lite's packages are made for Python 3.10",
    "lite/bin/pip": "the same",
    "export MLCLS_LITE_PYTHON": "the same",
    "mlcls export PP-LCNet_x1_0_ML --format paddle-lite": "the same",
}
"""The commands that this test cannot run, by how they begin, and why."""


def runs_here(command: str) -> bool:
    return not any(command.startswith(beginning) for beginning in NOT_RUN)


PAGES = [page for page in WRITTEN if any(map(runs_here, console_commands(page)))]


@pytest.fixture(scope="module")
def labeled(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output that most pages begin with."""
    out = tmp_path_factory.mktemp("labeled") / "out"
    run_installed("label", demo, "--out", out, "--run-id", "first")
    return out


@pytest.fixture
def sandbox(demo: Path, labeled: Path, tmp_path: Path, moto: str) -> Path:
    """A checkout as the reader has it, a home with pictures, an output, a bucket, and a small data set."""
    for name in (".venv", "configs", "jobs"):
        (tmp_path / name).symlink_to(ROOT / name)
    photos = sorted(demo.glob("*.jpg"))
    shutil.copytree(demo, tmp_path / "home/Pictures", ignore=shutil.ignore_patterns("*.tsv"))
    shutil.copytree(demo, tmp_path / "photos", ignore=shutil.ignore_patterns("*.tsv"))
    shutil.copytree(labeled, tmp_path / "out")
    shutil.copytree(labeled, tmp_path / "mine")
    shutil.copy(photos[2], tmp_path / "photo.jpg")
    bucket = s3_servers.filesystem(moto)
    if not bucket.exists("bucket"):
        bucket.mkdir("bucket")
    for path in photos[:3]:
        bucket.put_file(str(path), f"bucket/photos/{path.name}")
    write_dataset(tmp_path / "data")
    task = {
        "data": {"image": "photos/cat.jpg", "uri": str(tmp_path / "photos/cat.jpg")},
        "annotations": [
            {"result": [{"from_name": "labels", "to_name": "image", "type": "choices", "value": {"choices": ["dark"]}}]}
        ],
    }
    (tmp_path / "export.json").write_text(json.dumps([task]))
    return tmp_path


def write_dataset(folder: Path) -> None:
    """18 images of two classes, dark and bright."""
    (folder / "images").mkdir(parents=True)
    (folder / "label.txt").write_text("0 dark\n1 bright\n")
    random = np.random.default_rng(0)
    for split, numbers in {"train": range(12), "dev": range(12, 18)}.items():
        lines = []
        for number in numbers:
            is_bright = bool(random.random() > 0.5)
            image = picture(seed=number).point(lambda value, add=is_bright: value // 2 + 127 * add)
            (folder / f"images/{number}.jpg").write_bytes(encode(image))
            lines.append(f"images/{number}.jpg\t{int(not is_bright)},{int(is_bright)}\n")
        (folder / f"{split}.txt").write_text("".join(lines))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_in_the_order_of_the_page(page: Path, sandbox: Path, tiny_folder: Path, moto: str) -> None:
    environment = {
        **os.environ,
        **s3_servers.CREDENTIALS,
        "AWS_ENDPOINT_URL": moto,
        "HOME": str(sandbox / "home"),
        "PATH": f"{sandbox / '.venv/bin'}:{os.environ['PATH']}",
        "COLUMNS": "120",
    }
    failed = []
    for command in filter(runs_here, console_commands(page)):
        done = subprocess.run(
            ["bash", "-c", command.replace("PP-LCNet_x1_0_ML", str(tiny_folder))],
            cwd=sandbox,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode or "Traceback" in done.stderr:
            failed.append(f"$ {command}\nexit code {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}")
    assert not failed, "\n\n".join(failed)


def test_the_pages_show_commands() -> None:
    assert len(PAGES) >= 7
    assert sum(runs_here(command) for page in PAGES for command in console_commands(page)) >= 40


def test_each_reason_is_still_needed() -> None:
    commands = [command for page in WRITTEN for command in console_commands(page)]
    unused = [beginning for beginning in NOT_RUN if not any(command.startswith(beginning) for command in commands)]
    assert unused == []

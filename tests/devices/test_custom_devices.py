"""NPUs and the other devices that Paddle reaches through plug-ins: real plug-ins, whose devices are the host's memory.

XPU and DCU are not among them: Paddle has them built in, in builds of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlcls_ray.labels.thresholds import parse_thresholds
from mlcls_ray.predict.pipeline import create_pipeline
from mlcls_ray.storage.store import Store
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.verify import verify
from tests.conftest import ROOT, encode, picture, run_installed
from tests.devices.plugins import KINDS, build

TOLERANCE = 1e-4
EACH_KIND = [pytest.param(kind, marks=[] if kind == "npu" else [pytest.mark.slow]) for kind in KINDS]
"""One kind in the default tier, each in the slow one."""
TOO_SMALL = "the device failed to allocate memory: is it full?"
EVERY_CLASS = ("--threshold", "0")


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which Paddle finds two devices of each kind."""
    return build(tmp_path_factory.mktemp("plugins"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(16):
        (folder / f"{number:02d}.jpg").write_bytes(encode(picture(seed=number), quality=90))
    return folder


@pytest.fixture(scope="module")
def cpu_scores(tiny_folder: Path, photos: Path) -> dict[str, dict[str, float]]:
    """The score of each class, by file name and class, from Paddle on the CPU."""
    pipeline = create_pipeline(model=tiny_folder, device="cpu", threshold=parse_thresholds("0"))
    return by_name([result.json for result in pipeline.predict(str(photos))])


@pytest.fixture(scope="module")
def answers(plugins: dict[str, str], tiny_folder: Path, photos: Path) -> dict[str, Any]:
    """The answers of `engine_answers.py`, from one process for all kinds, because Paddle takes seconds to load."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.devices.engine_answers", tiny_folder, photos, *KINDS],
        env={**os.environ, **plugins}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def by_name(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The scores in results of `predict`, by file name and class."""
    return {Path(one["img_path"]).name: dict(zip(one["label_names"], one["scores"], strict=True)) for one in results}


def assert_same(actual: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert actual.keys() == expected.keys()
    for name, scores in expected.items():
        assert actual[name] == pytest.approx(scores, abs=TOLERANCE), name


def used_devices(log: Path) -> list[str]:
    """The devices that processes used, by their numbers on the machine: one for each process and device."""
    return sorted(line.split()[0] for line in log.read_text().splitlines())


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_cpus(answers: dict[str, Any], kind: str) -> None:
    assert answers["kinds"][kind]["devices"] == 2
    assert answers["kinds"][kind]["difference"] <= TOLERANCE


def test_a_device_that_is_too_small(answers: dict[str, Any]) -> None:
    assert answers["too_small"].endswith(TOO_SMALL)
    assert "\n" not in answers["too_small"]


@pytest.mark.parametrize("kind", EACH_KIND)
def test_a_job_uses_both_devices(
    plugins: dict[str, str],
    tiny_folder: Path,
    photos: Path,
    cpu_scores: dict[str, dict[str, float]],
    kind: str,
    tmp_path: Path,
) -> None:
    """The Ray that the job starts is told of the devices that Paddle sees; each worker has one of its own."""
    log, out = tmp_path / "log", tmp_path / "out"
    label(photos, out, tiny_folder, kind, {**plugins, "STAND_IN_LOG": str(log), "STAND_IN_LINES": "2"})
    assert used_devices(log) == [f"{kind}:0", f"{kind}:1"]
    table = open_labels(str(out)).pandas()
    assert set(table.status) == {"ok"}
    assert set(table.engine) == {"paddle"}
    actual = {Path(row.uri).name: dict(zip(row.labels, row.scores.tolist(), strict=True)) for row in table.itertuples()}
    assert_same(actual, cpu_scores)
    assert verify(Store(str(out))) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shown", "device", "used"), [("", "npu:1", "npu:1"), ("1", "npu", "npu:1"), ("", "mlu:1", "mlu:1")]
)
def test_a_named_device(
    plugins: dict[str, str], tiny_folder: Path, photos: Path, shown: str, device: str, used: str, tmp_path: Path
) -> None:
    """Named by the job, or by the variable that says which devices a process sees."""
    log = tmp_path / "log"
    variables = {"STAND_IN_LOG": str(log), **({"ASCEND_RT_VISIBLE_DEVICES": shown} if shown else {})}
    label(photos, tmp_path / "out", tiny_folder, device, {**plugins, **variables})
    assert used_devices(log) == [used]


def test_predict(answers: dict[str, Any], cpu_scores: dict[str, dict[str, float]]) -> None:
    assert_same(by_name(answers["predicted"]), cpu_scores)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_predict(
    plugins: dict[str, str],
    tiny_folder: Path,
    photos: Path,
    cpu_scores: dict[str, dict[str, float]],
    kind: str,
    tmp_path: Path,
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    words = ["--model", tiny_folder, "--device", f"{kind}:1", "--save-path", out, *EVERY_CLASS]
    run_installed("predict", "-i", photos, *words, env={**plugins, "STAND_IN_LOG": str(log)})
    assert used_devices(log) == [f"{kind}:1"]
    assert_same(by_name([json.loads(path.read_text()) for path in out.glob("*.json")]), cpu_scores)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "shown", "message"),
    [
        ("npu:2", None, "device 'npu:2': Paddle sees 2 npu device(s) on this machine"),
        ("npu:1", "0", "device 'npu:1': Paddle sees 1 npu device(s) on this machine"),
        ("mlu", "", "device 'mlu': Paddle sees 0 mlu device(s) on this machine"),
    ],
)
def test_a_device_that_is_not_there(
    plugins: dict[str, str],
    tiny_folder: Path,
    photos: Path,
    device: str,
    shown: str | None,
    message: str,
    tmp_path: Path,
) -> None:
    variables = {} if shown is None else {"ASCEND_RT_VISIBLE_DEVICES": shown, "MLU_VISIBLE_DEVICES": shown}
    done = label(photos, tmp_path / "out", tiny_folder, device, {**plugins, **variables}, check=2)
    assert message in done.stderr


@pytest.mark.slow
def test_a_job_on_a_device_that_is_too_small(
    plugins: dict[str, str], tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    """The model does not fit: the run stops and says why, and the same command resumes it where there is room."""
    out = tmp_path / "out"
    done = label(photos, out, tiny_folder, "npu", {**plugins, "STAND_IN_BYTES": "1000"}, check=1)
    assert TOO_SMALL in done.stderr
    assert "resume" in done.stderr
    label(photos, out, tiny_folder, "npu", plugins)
    assert len(list((out / "runs").iterdir())) == 1
    assert set(open_labels(str(out)).pandas().status) == {"ok"}


def label(
    photos: Path, out: Path, model: Path, device: str, variables: dict[str, str], check: int = 0
) -> subprocess.CompletedProcess[str]:
    """Label in small blocks, so that there is work for two workers."""
    words = ["--out", out, "--model", model, "--device", device, "--batch-size", 4, "--block-rows", 4, *EVERY_CLASS]
    return run_installed("label", photos, *words, env=variables, check=check)

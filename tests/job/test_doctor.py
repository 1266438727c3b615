"""`mlcls doctor`: the checks together, on machines that stand-ins describe, and the command on this one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pynvml
import pytest

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.checks.check import Outcome, Probes
from mlcls_ray.engines.host import Host
from mlcls_ray.engines.nvidia import GIB, read_driver
from mlcls_ray.job.doctor import Report, examine
from tests.conftest import run_cli
from tests.nvml_stand_in import StandInCard, StandInNvml

HOST = Host(
    processor="Xeon",
    architecture="x86_64",
    cores=4,
    total_bytes=16 * GIB,
    available_bytes=12 * GIB,
    shared_bytes=8 * GIB,
)
BASE = {"ray": "2.60.0", "simplejpeg": "1.9", "paddlepaddle": "3.3.1", "openvino": "2026.4.1", "paddle2onnx": "2.1.0"}
ON_CPU = {**BASE, "onnxruntime": "1.32.0"}
ON_GPU = {
    **BASE,
    "onnxruntime-gpu": "1.31.1",
    "nvidia-nvimgcodec-cu13": "0.9",
    "cupy-cuda13x": "14.2",
    "nvidia-nvjpeg": "13",
}
NO_DRIVER = StandInNvml(error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
CARD = StandInNvml(StandInCard())


def examined(
    device: str, packages: Mapping[str, str], nvml: StandInNvml, cache: Path, failing: str = "", host: Host = HOST
) -> Report:
    """Examine a machine on which the probe with the word `failing` fails."""

    def run(words: Sequence[str], environ: Mapping[str, str]) -> Outcome:
        if failing and failing in words:
            return Outcome(1, "", f"ImportError: {failing} does not load")
        return Outcome(0, "ok\n" if words[0] != "session" else f"{words[1]}\n")

    probes = Probes(version=lambda name: packages.get(name, ""), driver=lambda: read_driver(nvml), run=run, environ={})
    return examine(parse_device(device), probes, host, cache)


def states(report: Report) -> dict[str, str]:
    return {check.name: check.state for check in report.checks if check.state != "ok"}


@pytest.mark.parametrize(
    ("device", "packages", "nvml", "failing", "can_label", "expected"),
    [
        ("cpu", ON_CPU, NO_DRIVER, "", True, {"NVIDIA driver": "missing"}),
        ("cpu", BASE, NO_DRIVER, "", True, {"NVIDIA driver": "missing", "engine onnxruntime": "missing"}),
        ("cpu", ON_GPU, CARD, "", True, {}),
        ("cpu", ON_CPU, CARD, "", True, {"onnxruntime-gpu": "missing"}),
        ("cpu", ON_CPU, NO_DRIVER, "openvino", True, {"NVIDIA driver": "missing", "engine openvino": "broken"}),
        ("cpu", ON_CPU, NO_DRIVER, "paddle", False, {"NVIDIA driver": "missing", "engine paddle": "broken"}),
        ("cpu", ON_CPU, NO_DRIVER, "cv2", False, {"NVIDIA driver": "missing", "decoders": "broken"}),
        ("cpu", {**ON_CPU, "ray": "2.61.0"}, NO_DRIVER, "", False, {"NVIDIA driver": "missing", "Ray": "broken"}),
        ("gpu", ON_GPU, CARD, "", True, {}),
        ("gpu", {name: ON_GPU[name] for name in ON_GPU if name != "paddlepaddle"}, CARD, "", True, {"engine paddle": "missing"}),
        ("gpu", ON_GPU, CARD, "decoder", True, {"JPEGs on the card": "broken"}),
        ("gpu", ON_GPU, CARD, "session", False, {"network on the card": "broken"}),
        ("gpu", ON_CPU, CARD, "", False, {"onnxruntime-gpu": "missing"}),
        ("gpu", {**ON_CPU, **ON_GPU}, CARD, "", False, {"onnxruntime-gpu": "broken"}),
        ("gpu", ON_GPU, NO_DRIVER, "", False, {"NVIDIA driver": "missing"}),
        ("gpu:1", ON_GPU, CARD, "", False, {"cards": "broken"}),
    ],
    ids=[
        "a CPU machine", "without ONNX Runtime", "with a card", "with a card that is not used", "OpenVINO broken", "Paddle broken",
        "OpenCV broken", "another Ray", "a GPU machine", "without Paddle", "no decoder", "CUDA broken", "the build for CPUs", "both builds",
        "no driver", "no such card",
    ],
)  # fmt: skip
def test_machines(
    device: str,
    packages: Mapping[str, str],
    nvml: StandInNvml,
    failing: str,
    can_label: bool,
    expected: Mapping[str, str],
    tmp_path: Path,
) -> None:
    report = examined(device, packages, nvml, tmp_path, failing)
    assert states(report) == expected
    assert report.can_label == can_label
    assert all(check.way_out for check in report.checks if check.state != "ok")
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_small_container(tmp_path: Path) -> None:
    small = HOST.model_copy(update={"available_bytes": GIB // 4, "shared_bytes": 64 << 20})
    report = examined("cpu", ON_CPU, NO_DRIVER, tmp_path, host=small)
    assert states(report) == {"memory": "broken", "shared memory": "broken", "NVIDIA driver": "missing"}
    assert not report.can_label


def test_the_command(tmp_path: Path) -> None:
    """On this machine, with its real libraries."""
    env = {"MLCLS_HOME": str(tmp_path), "COLUMNS": "200"}
    report = Report.model_validate_json(run_cli("doctor", "--json", env=env).stdout)
    assert report.can_label
    assert {check.name: check.state for check in report.checks if check.is_required} == dict.fromkeys(
        ("processor", "memory", "Ray", "decoders", "engine paddle", "model cache"), "ok"
    )


@pytest.mark.skipif(not read_driver().error, reason="this machine has an NVIDIA driver")
def test_the_command_without_a_card(tmp_path: Path) -> None:
    done = run_cli("doctor", "--device", "gpu", check=1, env={"MLCLS_HOME": str(tmp_path), "COLUMNS": "200"})
    assert "labeling on gpu is not possible on this machine" in done.stdout
    assert "→ install NVIDIA's driver" in done.stdout
    assert len(done.stdout.splitlines()) <= 24, "one screen"
    unknown = run_cli("doctor", "--device", "cuda", check=2)
    assert "unknown device 'cuda'" in unknown.stderr


def test_the_json_is_one_object(tmp_path: Path) -> None:
    report = examined("gpu", ON_GPU, NO_DRIVER, tmp_path)
    loaded = json.loads(report.model_dump_json())
    (driver,) = [check for check in loaded["checks"] if check["name"] == "NVIDIA driver"]
    assert (driver["state"], driver["is_required"]) == ("missing", True)

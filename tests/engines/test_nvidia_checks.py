"""Every state of an NVIDIA machine, shown by stand-ins: one line with the way out, and what a good machine answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pynvml
import pytest

from mlcls_ray.devices import Device, parse_device
from mlcls_ray.engines.checks.check import Outcome, Probes, run_probe
from mlcls_ray.engines.checks.nvidia import (
    NEEDED_BYTES,
    check_session,
    decoder_check,
    explain,
    needed_cuda,
    nvidia_checks,
)
from mlcls_ray.engines.devices import check_device, count_devices
from mlcls_ray.engines.machine import card_name
from mlcls_ray.engines.nvidia import GIB, Driver, read_driver, visible_cards
from mlcls_ray.errors import UsageError
from tests.nvml_stand_in import StandInCard, StandInNvml

H200 = StandInCard()
SECOND = StandInCard(uuid="GPU-11111111-bbbb")
SLICES = (
    StandInCard("NVIDIA H200 MIG 1g.18gb", "MIG-aaaa", 17 * GIB, 18 * GIB, None),
    StandInCard("NVIDIA H200 MIG 1g.18gb", "MIG-bbbb", 17 * GIB, 18 * GIB, None),
)
GOOD = Outcome(0, "CUDAExecutionProvider\n")
DECODED = Outcome(0, "ok\n")
INSTALLED = {"onnxruntime-gpu": "1.31.1", "nvidia-nvimgcodec-cu13": "0.9.0.20", "cupy-cuda13x": "14.2.0"}
NVJPEG = {"nvidia-nvjpeg": "13.2.3.58"}
CUDA, FIRST_DRIVER = needed_cuda()


def probes(
    *cards: StandInCard,
    packages: Mapping[str, str] = INSTALLED,
    session: Outcome = GOOD,
    decoder: Outcome = DECODED,
    visible: str | None = None,
    **nvml: Any,
) -> Probes:
    """A machine with these cards and packages, whose probes end like this."""

    def run(words: Sequence[str], environ: Mapping[str, str]) -> Outcome:
        return {"session": session, "decoder": decoder}[words[0]]

    return Probes(
        version=lambda name: packages.get(name, ""),
        driver=lambda: read_driver(StandInNvml(*cards, **nvml)),
        run=run,
        environ={} if visible is None else {"CUDA_VISIBLE_DEVICES": visible},
    )


def lost_library(name: str) -> Outcome:
    """onnxruntime-gpu 1.31.1 without a library of CUDA's: it says so in red, and runs the network on the CPU."""
    errors = (
        "\x1b[1;31m2026-11-28 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] [ONNXRuntimeError] : 1 : FAIL : Failed to "
        f"load library /env/capi/libonnxruntime_providers_cuda.so with error: {name}: cannot open shared object file: No such file or "
        "directory\n\x1b[m\n\x1b[0;93m2026-11-28 [W:onnxruntime:Default] Failed to create CUDAExecutionProvider. Require cuDNN 9.*\x1b[m\n"
    )
    return Outcome(0, f"Failed to load {name}: it is not there\nCPUExecutionProvider\n", errors)


@pytest.mark.parametrize(
    ("device", "machine", "expected"),
    [
        pytest.param(
            "gpu",
            probes(error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
            ("no NVIDIA driver on this machine; install NVIDIA's driver", "docker run --gpus all", "--device cpu"),
            id="no driver",
        ),
        pytest.param(
            "gpu",
            probes(error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED),
            ("the NVIDIA driver does not answer (Driver Not Loaded); sudo modprobe nvidia",),
            id="driver not loaded",
        ),
        pytest.param(
            "gpu",
            probes(error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH),
            ("version mismatch", "restart the machine"),
            id="driver updated under way",
        ),
        pytest.param("gpu", probes(H200, SECOND, lost=1), ("GPU is lost", "restart the machine"), id="card lost"),
        pytest.param("gpu", probes(), ("manages no card", "nvidia-smi -L"), id="driver without a card"),
        pytest.param(
            "gpu",
            probes(H200, driver="520.61.05", cuda=11080),
            (f"520.61.05 has CUDA 11.8, and CUDA {CUDA} is needed; install driver {FIRST_DRIVER} or newer",),
            id="old driver",
        ),
        pytest.param(
            "gpu",
            probes(StandInCard("Tesla V100-SXM2-16GB", capability=(7, 0))),
            ("card 0 (Tesla V100-SXM2-16GB) has compute capability 7.0; 7.5 (Turing) or newer",),
            id="old card",
        ),
        pytest.param(
            "gpu:3",
            probes(H200, SECOND),
            ("device 'gpu:3': there is no card 3 among the 2 card(s); use gpu:0, gpu:1",),
            id="no such card",
        ),
        pytest.param(
            "gpu:1",
            probes(H200, SECOND, visible="1"),
            ("no card 1 among the 1 card(s) that CUDA_VISIBLE_DEVICES=1 shows; use gpu:0",),
            id="no such card among those shown",
        ),
        pytest.param(
            "gpu",
            probes(H200, visible=""),
            ("CUDA_VISIBLE_DEVICES= shows none of the 1 card(s); unset CUDA_VISIBLE_DEVICES",),
            id="no card shown",
        ),
        pytest.param(
            "gpu:1",
            probes(H200, SECOND._replace(free=GIB // 2)),
            ("card 1 (NVIDIA H200) is full: 0.5 of 140.0 GiB free, and 2 GiB are needed", "or use gpu:0"),
            id="full card",
        ),
        pytest.param(
            "gpu",
            probes(H200._replace(slices=SLICES)),
            ("is cut into 2 MIG slice(s), and none is named; export CUDA_VISIBLE_DEVICES=MIG-aaaa,MIG-bbbb",),
            id="a slice that is not named",
        ),
        pytest.param(
            "gpu",
            probes(H200._replace(slices=())),
            ("is in MIG mode and has no slice", "nvidia-smi -mig 0"),
            id="no slice",
        ),
        pytest.param(
            "gpu",
            probes(H200, packages={}),
            ("onnxruntime-gpu is not installed; pip install 'mlcls-ray[gpu]'",),
            id="no onnxruntime-gpu",
        ),
        pytest.param(
            "gpu",
            probes(H200, packages={"onnxruntime": "1.32.0"}),
            (
                "onnxruntime 1.32.0 is installed, which cannot use a card",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'mlcls-ray[gpu]'",
            ),
            id="onnxruntime for CPUs",
        ),
        pytest.param(
            "gpu",
            probes(H200, packages={"onnxruntime": "1.32.0", **INSTALLED}),
            (
                "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'mlcls-ray[gpu]'",
            ),
            id="both builds",
        ),
        pytest.param(
            "gpu",
            probes(H200, session=lost_library("libcublasLt.so.13")),
            ("the CUDA library libcublasLt.so.13 is missing; pip install --force-reinstall --no-deps nvidia-cublas",),
            id="a CUDA library is missing",
        ),
        pytest.param(
            "gpu",
            probes(H200, session=Outcome(-11)),
            ("signal 11", "nvidia-smi shows whether the card answers"),
            id="a library that crashes",
        ),
    ],
)
def test_a_job_is_refused_in_one_line(device: str, machine: Probes, expected: Sequence[str]) -> None:
    with pytest.raises(UsageError) as refused:
        check_device(parse_device(device), "auto", machine)
    message = str(refused.value)
    assert message.startswith(f"device '{device}': ")
    assert "\n" not in message
    assert [words for words in expected if words not in message] == []


@pytest.mark.parametrize(
    ("device", "machine", "message"),
    [
        ("gpu", probes(H200, SECOND), "gpu:0 NVIDIA H200 (139.0 of 140.0 GiB free), gpu:1 NVIDIA H200"),
        ("gpu:0", probes(H200, SECOND, visible="GPU-1111"), "gpu:0 NVIDIA H200"),
        (
            "gpu:1",
            probes(H200._replace(slices=SLICES), visible="MIG-aaaa,MIG-bbbb"),
            "gpu:1 NVIDIA H200 MIG 1g.18gb (17",
        ),
        ("gpu:0", probes(H200, SECOND._replace(free=0)), "gpu:0"),
        ("gpu", probes(H200._replace(free=None)), "gpu:0 NVIDIA H200 (memory shared with the host)"),
        ("gpu", probes(H200._replace(free=NEEDED_BYTES)), "2.0 of 140.0 GiB free"),
    ],
    ids=["two", "by UUID", "slices", "another one is full", "shared memory", "just room"],
)
def test_a_good_machine(device: str, machine: Probes, message: str) -> None:
    check_device(parse_device(device), "auto", machine)
    checks = list(nvidia_checks(parse_device(device), machine))
    assert [check.state for check in checks] == ["ok"] * 4
    assert message in checks[1].message


def test_devices_are_counted_without_paddle() -> None:
    assert count_devices(Device("gpu"), probes(H200, SECOND)) == 2
    assert count_devices(Device("gpu"), probes(H200, SECOND, visible="1")) == 1
    assert count_devices(Device("gpu"), probes(H200._replace(slices=SLICES), visible="MIG-aaaa,MIG-bbbb")) == 2
    with pytest.raises(UsageError, match="no NVIDIA driver"):
        count_devices(Device("gpu"), probes(error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, "01"), ("", ""), ("0", "0"), ("1,0", "10"), ("1, 0", "10"), ("0,7,1", "0"), ("-1", ""), ("0,-1,1", "0"), ("0,0", "0"),
        ("GPU-1", "1"), ("GPU-", ""), ("NoDevFiles", ""), ("MIG-a", "a"), ("MIG-aaaa,MIG-bbbb", "ab"), ("2", ""),
    ],
)  # fmt: skip
def test_the_cards_that_cuda_shows(visible: str | None, expected: str) -> None:
    """As CUDA reads the variable: the first entry that fits no card ends the list."""
    cards = read_driver(StandInNvml(H200._replace(slices=SLICES), SECOND)).cards
    letters = {H200.uuid: "0", SECOND.uuid: "1", "MIG-aaaa": "a", "MIG-bbbb": "b"}
    assert "".join(letters[card.uuid] for card in visible_cards(cards, visible)) == expected


def test_nvml_is_closed_again() -> None:
    for nvml in (StandInNvml(H200), StandInNvml(H200, lost=0)):
        read_driver(nvml)
        assert not nvml.is_open


def test_a_card_is_known_by_its_name() -> None:
    """`engine: auto` remembers its trials by it: a slice is another machine than the whole card."""
    driver = read_driver(StandInNvml(H200._replace(slices=SLICES), StandInCard("NVIDIA L4", "GPU-2")))
    assert card_name(Device("gpu"), driver, None) == "NVIDIA H200"
    assert card_name(Device("gpu", (0,)), driver, "1") == "NVIDIA L4"
    assert card_name(Device("gpu"), driver, "MIG-bbbb") == "NVIDIA H200 MIG 1g.18gb"
    assert card_name(Device("gpu", (5,)), driver, None) == "gpu"
    assert card_name(Device("gpu"), Driver(error="gone"), None) == "gpu"


@pytest.mark.parametrize(
    ("reason", "expected", "way_out"),
    [
        ("libcudnn.so.9: cannot open shared object file", "libcudnn.so.9 is missing", "nvidia-cudnn-cu13"),
        ("libnvrtc.so.13: cannot open shared object file", "libnvrtc.so.13 is missing", "nvidia-cuda-nvrtc"),
        ("libcuda.so.1: cannot open shared object file", "the driver's library libcuda.so.1", "docker run --gpus all"),
        ("libstrange.so.2: cannot open shared object file", "libstrange.so.2 is missing", "mlcls-ray[gpu]"),
        ("CUDA failure 2: out of memory ; GPU=0", "memory is full", "nvidia-smi"),
        ("CUDA failure 802: system not yet initialized", "fabric manager", "systemctl start nvidia-fabricmanager"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "too old", "driver 580"),
        ("CUDA failure 100: no CUDA-capable device is detected", "CUDA finds no card", "CUDA_VISIBLE_DEVICES"),
        ("CUDA failure 209: no kernel image is available for execution on the device", "no code for this", "7.5"),
        ("CUDA failure 719: unspecified launch failure", "does not answer", "restart"),
        ("something nobody has seen", "does not run on CUDA: something nobody has seen", "nvidia-smi"),
    ],
)
def test_errors_of_cuda_are_explained(reason: str, expected: str, way_out: str) -> None:
    message, actual = explain(reason, cuda=13)
    assert expected in message
    assert way_out in actual


def test_the_packages_of_cuda_12_have_other_names() -> None:
    """Python 3.10 has no ONNX Runtime for CUDA 13."""
    for library, package in (("libcudnn.so.9", "nvidia-cudnn-cu12"), ("libcublas.so.12", "nvidia-cublas-cu12")):
        assert explain(f"{library}: cannot open shared object file", cuda=12)[1].endswith(f"--no-deps {package}")


@pytest.mark.parametrize(
    ("packages", "outcome", "state", "expected"),
    [
        ({**INSTALLED, **NVJPEG}, Outcome(0, "ok\n"), "ok", "answered"),
        (INSTALLED, Outcome(0, "ok\n"), "ok", "answered"),  # nvJPEG of a CUDA toolkit
        (INSTALLED, Outcome(0, "JPEGs came back on the CPU\n"), "broken", "without nvJPEG: the CPUs decode; pip install 'nvidia-nv"),
        ({**INSTALLED, **NVJPEG}, Outcome(0, "the card's JPEG decoder is mute\n"), "broken", "decoder is mute"),
        ({**INSTALLED, **NVJPEG}, Outcome(1, "", "Traceback\nRuntimeError: no nvJPEG\n"), "broken", "RuntimeError: no nvJPEG"),
        ({"onnxruntime-gpu": "1.31.1"}, Outcome(0, "ok\n"), "missing", "pip install 'mlcls-ray[gpu]'"),
    ],
    ids=["good", "toolkit", "without nvJPEG", "mute", "crash", "no packages"],
)  # fmt: skip
def test_the_decoder_is_no_condition(packages: Mapping[str, str], outcome: Outcome, state: str, expected: str) -> None:
    check = decoder_check(Device("gpu"), probes(H200, packages=packages, decoder=outcome))
    assert (check.state, check.is_required) == (state, False)
    assert expected in check.text


def test_the_session_probe_runs_a_network() -> None:
    """The same probe as on a card, for the build and the provider that are here."""
    outcome = run_probe(["session", "CPUExecutionProvider", "0"], Probes().environ)
    assert (outcome.code, outcome.answer) == (0, "CPUExecutionProvider"), outcome.errors
    assert check_session(outcome).state == "broken", "a session on the CPU is none on the card"
    refused = run_probe(["session", "CUDAExecutionProvider", "0"], Probes().environ)
    assert refused.code != 0 or refused.answer == "CUDAExecutionProvider"


def test_paddle_for_cuda_is_another_matter() -> None:
    """`--engine paddle` on a card needs a Paddle that PyPI does not have, and the message says so."""
    import paddle

    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle has CUDA")
    with pytest.raises(UsageError, match=r"built without gpu; install paddlepaddle-gpu 3 or newer .*PyPI has 2\.6\.2"):
        check_device(Device("gpu"), "paddle", probes(H200))

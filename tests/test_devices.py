"""Devices: what is meant, and a clear no where it is not there."""

from __future__ import annotations

import os

import paddle
import pytest

from mlcls_ray.devices import DEVICE_KINDS, Device, parse_device
from mlcls_ray.engines.devices import check_device, check_paddle_device, count_devices
from mlcls_ray.engines.nvidia import read_driver
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import local_devices


def test_strings() -> None:
    assert parse_device("cpu") == Device("cpu")
    assert parse_device(" GPU:1 ") == Device("gpu", (1,))
    assert parse_device("gpu:0, 2") == Device("gpu", (0, 2))
    assert [str(parse_device(text)) for text in ("cpu", "gpu", "npu:3", "mlu:0,1")] == [
        "cpu",
        "gpu",
        "npu:3",
        "mlu:0,1",
    ]
    assert [one.index for one in parse_device("xpu:1,3").each()] == [1, 3]
    assert [one.index for one in parse_device("xpu").each()] == [0]


@pytest.mark.parametrize("text", ["cuda", "gpu:a", "cpu:0", "", "gpu:", "gpu:0,", "gpu:0,0", "gpu:-1"])
def test_wrong_strings(text: str) -> None:
    with pytest.raises(UsageError, match="device"):
        parse_device(text)


@pytest.mark.parametrize("kind", [kind for kind in DEVICE_KINDS if kind not in ("cpu", "gpu")])
def test_a_missing_plug_in_is_named(kind: str) -> None:
    """No device of any of these kinds is on the machines that run the tests; where one is, it is found."""
    try:
        count = count_devices(Device(kind))
    except UsageError as error:
        assert f"install {DEVICE_KINDS[kind].package} from Paddle's own package index" in str(error)
    else:
        assert count >= 0


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle has CUDA")
def test_no_silent_fall_back() -> None:
    with pytest.raises(UsageError, match="built without gpu; install paddlepaddle-gpu 3"):
        check_paddle_device(Device("gpu"))
    with pytest.raises(UsageError, match="paddle-custom-npu"):
        check_device(Device("npu"))
    check_device(Device("cpu"))
    check_paddle_device(Device("cpu"))


@pytest.mark.skipif(not read_driver().error, reason="this machine has an NVIDIA driver")
def test_a_machine_without_a_driver() -> None:
    for check in (check_device, count_devices):
        with pytest.raises(UsageError, match="device 'gpu': no NVIDIA driver on this machine; install"):
            check(Device("gpu"))


@pytest.mark.parametrize(
    ("device", "shown", "options", "left"),
    [
        ("gpu", "MIG-a,MIG-b", {"num_gpus": 2}, "MIG-a,MIG-b"),
        ("gpu:1", "MIG-a,MIG-b", {"num_gpus": 1}, "MIG-b"),
        ("gpu:1", "5,7", {}, "7"),
        ("gpu", "5,7", {}, "5,7"),
    ],
)
def test_ray_is_told_of_slices(
    device: str, shown: str, options: dict[str, int], left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray counts whole cards by itself."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert local_devices(parse_device(device)) == options
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left

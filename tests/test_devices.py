"""Devices: what is meant, and a clear no where it is not there."""

from __future__ import annotations

import paddle
import pytest

from mlcls_ray.devices import DEVICE_KINDS, Device, parse_device
from mlcls_ray.engines.devices import check_device, count_devices
from mlcls_ray.errors import UsageError


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


@pytest.mark.parametrize("kind", [kind for kind in DEVICE_KINDS if kind != "cpu"])
def test_a_missing_plug_in_is_named(kind: str) -> None:
    """No device of any of these kinds is on the machines that run the tests; where one is, it is found."""
    try:
        count = count_devices(Device(kind))
    except UsageError as error:
        assert f"install {DEVICE_KINDS[kind].package}" in str(error)
    else:
        assert count >= 0


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle has CUDA")
def test_no_silent_fall_back() -> None:
    with pytest.raises(UsageError, match="built without gpu; install paddlepaddle-gpu"):
        check_device(Device("gpu"))
    with pytest.raises(UsageError, match="paddle-custom-npu"):
        check_device(Device("npu"))
    check_device(Device("cpu"))

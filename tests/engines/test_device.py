"""Devices: what is meant, and a clear no where it is not there."""

from __future__ import annotations

import paddle
import pytest

from mlcls_ray.engines.device import Device, check_device, parse_device
from mlcls_ray.errors import UsageError


def test_strings() -> None:
    assert parse_device("cpu") == Device("cpu")
    assert parse_device(" GPU:1 ") == Device("gpu", 1)
    assert [str(parse_device(text)) for text in ("cpu", "gpu", "npu:3")] == ["cpu", "gpu:0", "npu:3"]


@pytest.mark.parametrize("text", ["cuda", "gpu:a", "cpu:0", "", "gpu:"])
def test_wrong_strings(text: str) -> None:
    with pytest.raises(UsageError, match="device"):
        parse_device(text)


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle has CUDA")
def test_no_silent_fall_back() -> None:
    with pytest.raises(UsageError, match="built without gpu; install paddlepaddle-gpu"):
        check_device(Device("gpu"))
    with pytest.raises(UsageError, match="paddle-custom-npu"):
        check_device(Device("npu"))
    check_device(Device("cpu"))

"""Devices: how a `device` string maps to Paddle and to a Ray resource."""

from __future__ import annotations

from typing import NamedTuple

from mlcls_ray.errors import UsageError, did_you_mean


class Kind(NamedTuple):
    """`resource`: what Ray schedules it by (Ray then shows each worker only its own card, as index 0)."""

    resource: str
    package: str


KINDS = {
    "cpu": Kind("CPU", "paddlepaddle"),
    "gpu": Kind("GPU", "paddlepaddle-gpu"),
    "npu": Kind("NPU", "paddlepaddle and paddle-custom-npu"),
}


class Device(NamedTuple):
    """A kind, and the card's number on this machine (0 for cpu)."""

    kind: str
    card: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.card}"

    @property
    def resource(self) -> str:
        return KINDS[self.kind].resource


def parse_device(text: str) -> Device:
    """`cpu`, `gpu`, `gpu:0`, `npu:0` …

    Raises:
        UsageError: anything else.
    """
    kind, separator, index = text.strip().lower().partition(":")
    if kind not in KINDS:
        raise UsageError(f"unknown device '{text}'{did_you_mean(kind, KINDS)}")
    if not separator:
        return Device(kind)
    if kind == "cpu" or not index.isdecimal():
        raise UsageError(f"device '{text}': write 'cpu', or a kind with one card's number such as 'gpu:0'")
    return Device(kind, int(index))


def check_device(device: Device) -> None:
    """Whether Paddle can use the device on this machine. There is no fall-back to CPU.

    Raises:
        UsageError: names the package to install, or the number of cards there are.
    """
    import paddle  # seconds to load; only where a device is really used

    if device.kind == "cpu":
        return
    package = KINDS[device.kind].package
    if device.kind == "gpu":
        built, count = paddle.is_compiled_with_cuda(), paddle.device.cuda.device_count()
    else:
        built = device.kind in paddle.device.get_all_custom_device_type()
        count = len([name for name in paddle.device.get_available_custom_device() if name.startswith(device.kind)])
    if not built:
        raise UsageError(f"device '{device}': this Paddle was built without {device.kind}; install {package}")
    if device.card >= count:
        raise UsageError(f"device '{device}': Paddle sees {count} {device.kind} card(s) on this machine")

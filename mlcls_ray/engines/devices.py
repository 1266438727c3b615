"""Devices: how a `device` string maps to Paddle, to the variable that hides cards, and to a Ray resource. docs/hardware.md says more."""

from __future__ import annotations

from typing import NamedTuple

from mlcls_ray.errors import UsageError, did_you_mean


class Kind(NamedTuple):
    """`resource`: what Ray schedules it by; `visible`: the variable that says which cards a process sees, by number."""

    resource: str
    visible: str
    package: str
    is_known_to_ray: bool = False
    """Ray counts the cards by itself, and shows each worker its own only, as index 0."""


KINDS = {
    "cpu": Kind("CPU", "", "paddlepaddle", is_known_to_ray=True),
    "gpu": Kind("GPU", "CUDA_VISIBLE_DEVICES", "paddlepaddle-gpu", is_known_to_ray=True),
    "npu": Kind("NPU", "ASCEND_RT_VISIBLE_DEVICES", "paddlepaddle and paddle-custom-npu", is_known_to_ray=True),
    "xpu": Kind("XPU", "XPU_VISIBLE_DEVICES", "paddlepaddle-xpu"),
    "mlu": Kind("MLU", "MLU_VISIBLE_DEVICES", "paddlepaddle and paddle-custom-mlu"),
    "dcu": Kind("GPU", "HIP_VISIBLE_DEVICES", "paddlepaddle-dcu", is_known_to_ray=True),
    "gcu": Kind("GCU", "TOPS_VISIBLE_DEVICES", "paddlepaddle and paddle-custom-gcu"),
    "iluvatar_gpu": Kind("ILUVATAR_GPU", "CUDA_VISIBLE_DEVICES", "paddlepaddle and paddle-iluvatar-gpu"),
    "metax_gpu": Kind("GPU", "CUDA_VISIBLE_DEVICES", "paddlepaddle and paddle-metax-gpu", is_known_to_ray=True),
}


class Device(NamedTuple):
    """A kind, and cards' numbers on a machine. No number: the first card for one engine, every card for a job."""

    kind: str
    cards: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.cards))}" if self.cards else self.kind

    @property
    def resource(self) -> str:
        return KINDS[self.kind].resource

    @property
    def card(self) -> int:
        """What one engine runs on."""
        return self.cards[0] if self.cards else 0

    def each(self) -> list[Device]:
        """One device for each card that is named; the device itself where none is."""
        return [Device(self.kind, (card,)) for card in self.cards] or [self]


def parse_device(text: str) -> Device:
    """`cpu`, `gpu`, `gpu:0`, `gpu:0,1`, `npu:0` …, in capitals too.

    Raises:
        UsageError: anything else.
    """
    kind, separator, numbers = text.strip().lower().partition(":")
    if kind not in KINDS:
        raise UsageError(f"unknown device '{text}'{did_you_mean(kind, KINDS)}; there are {', '.join(KINDS)}")
    if not separator:
        return Device(kind)
    cards = [number.strip() for number in numbers.split(",")]
    if kind == "cpu" or not all(number.isdecimal() for number in cards) or len(set(cards)) < len(cards):
        raise UsageError(f"device '{text}': write 'cpu', or a kind with cards' numbers such as 'gpu:0' or 'gpu:0,1'")
    return Device(kind, tuple(map(int, cards)))


def count_cards(device: Device) -> int:
    """How many cards of its kind Paddle sees on this machine.

    Raises:
        UsageError: Paddle was built without the kind; names the package to install.
    """
    import paddle  # seconds to load; only where a device is really used

    custom = [name for name in paddle.device.get_available_custom_device() if name.partition(":")[0] == device.kind]
    if device.kind == "gpu":
        is_built, count = paddle.is_compiled_with_cuda(), paddle.device.cuda.device_count()
    elif device.kind == "dcu":
        is_built, count = paddle.is_compiled_with_rocm(), paddle.device.cuda.device_count()
    elif device.kind == "xpu":
        is_built = paddle.is_compiled_with_xpu()
        count = paddle.device.xpu.device_count() if is_built else 0
    else:
        is_built, count = device.kind in paddle.device.get_all_custom_device_type(), len(custom)
    if not is_built:
        package = KINDS[device.kind].package
        raise UsageError(f"device '{device}': this Paddle was built without {device.kind}; install {package}")
    return int(count)


def check_device(device: Device) -> None:
    """Whether Paddle can use the device on this machine. There is no fall-back to CPU.

    Raises:
        UsageError: names the package to install, or the number of cards there are.
    """
    if device.kind != "cpu" and max(device.cards, default=0) >= (count := count_cards(device)):
        raise UsageError(f"device '{device}': Paddle sees {count} {device.kind} card(s) on this machine")

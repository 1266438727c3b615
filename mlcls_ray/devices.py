"""Devices: the kinds there are, and `Device`, parsed once from text such as `gpu:0,1`. See docs/hardware.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlcls_ray.errors import UsageError, suggest


class DeviceKind(NamedTuple):
    """A kind of device."""

    resource: str
    """Ray schedules it by this name."""
    visible_devices: str
    """The environment variable that says which devices a process sees, by their indices."""
    package: str
    """The packages that let a job score on it. Paddle's for accelerators are in Paddle's own package index, not on PyPI."""
    ray_managed: bool = False
    """Ray numbers these devices, and each worker sees its own one as index 0."""
    is_plugin: bool = False
    """Paddle reaches these devices through a plug-in (a "custom device"). Ray may not find them, so a Ray that is started here is told."""


DEVICE_KINDS: Mapping[str, DeviceKind] = {
    "cpu": DeviceKind("CPU", "", "paddlepaddle", ray_managed=True),
    "gpu": DeviceKind("GPU", "CUDA_VISIBLE_DEVICES", "mlcls-ray[gpu]", ray_managed=True),
    "npu": DeviceKind(
        "NPU", "ASCEND_RT_VISIBLE_DEVICES", "paddlepaddle and paddle-custom-npu", ray_managed=True, is_plugin=True
    ),
    "xpu": DeviceKind("XPU", "XPU_VISIBLE_DEVICES", "paddlepaddle-xpu"),
    "mlu": DeviceKind("MLU", "MLU_VISIBLE_DEVICES", "paddlepaddle and paddle-custom-mlu", is_plugin=True),
    "dcu": DeviceKind("GPU", "HIP_VISIBLE_DEVICES", "paddlepaddle-dcu", ray_managed=True),
    "gcu": DeviceKind("GCU", "TOPS_VISIBLE_DEVICES", "paddlepaddle and paddle-custom-gcu", is_plugin=True),
    "iluvatar_gpu": DeviceKind(
        "ILUVATAR_GPU", "CUDA_VISIBLE_DEVICES", "paddlepaddle and paddle-iluvatar-gpu", is_plugin=True
    ),
    "metax_gpu": DeviceKind(
        "GPU", "CUDA_VISIBLE_DEVICES", "paddlepaddle and paddle-metax-gpu", ray_managed=True, is_plugin=True
    ),
}


@dataclass(frozen=True)
class Device:
    """A kind of device, and the indices of some on a machine. No index: the first one for one engine, every one for a job."""

    kind: str
    indices: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.indices))}" if self.indices else self.kind

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    @property
    def resource(self) -> str:
        """Ray's name of the resource."""
        return DEVICE_KINDS[self.kind].resource

    @property
    def ray_managed(self) -> bool:
        """True if Ray counts and isolates devices of this kind by itself."""
        return DEVICE_KINDS[self.kind].ray_managed

    @property
    def index(self) -> int:
        """The device that one engine runs on."""
        return self.indices[0] if self.indices else 0

    def each(self) -> list[Device]:
        """One device for each index that is named; the device itself where none is."""
        return [Device(self.kind, (index,)) for index in self.indices] or [self]

    def in_worker(self) -> Device:
        """The device as a Ray worker sees it that asked for one: index 0 where Ray isolates devices."""
        return Device(self.kind, (0,)) if self.ray_managed and not self.is_cpu else self

    def ray_options(self, share: float = 1.0) -> dict[str, Any]:
        """Options by which a Ray task or actor asks for a share of one such device; none on CPUs."""
        if self.is_cpu:
            return {}
        return {"num_gpus": share} if self.resource == "GPU" else {"resources": {self.resource: share}}


def parse_device(text: str | Device) -> Device:
    """Parse `cpu`, `gpu`, `gpu:0`, `gpu:0,1`, `npu:0` …, in capitals too.

    Raises:
        UsageError: anything else.
    """
    if isinstance(text, Device):
        return text
    kind, separator, numbers = text.strip().lower().partition(":")
    if kind not in DEVICE_KINDS:
        raise UsageError(f"unknown device '{text}'{suggest(kind, DEVICE_KINDS)}")
    if not separator:
        return Device(kind)
    indices = [number.strip() for number in numbers.split(",")]
    if kind == "cpu" or not all(index.isdecimal() for index in indices) or len(set(indices)) < len(indices):
        raise UsageError(
            f"device '{text}': write 'cpu', or a kind with the indices of devices such as 'gpu:0' or 'gpu:0,1'"
        )
    return Device(kind, tuple(map(int, indices)))

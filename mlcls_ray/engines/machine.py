"""The identity of a machine: what decides, beside the model, how fast an engine is here and how exact."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.engines.nvidia import Driver, read_driver, visible_cards


def device_identity(device: Device) -> str:
    """Return what tells one type of processor or device from another."""
    if device.is_cpu:
        return _processor()
    return (
        card_name(device, read_driver(), os.environ.get(DEVICE_KINDS["gpu"].visible_devices))
        if device.kind == "gpu"
        else _device_name(device)
    )


def card_name(device: Device, driver: Driver, visible: str | None) -> str:
    """Return the name of an NVIDIA card or slice, as its driver reports it; `gpu` where there is none. `visible`: CUDA_VISIBLE_DEVICES."""
    cards = visible_cards(driver.cards, visible)
    return cards[device.index].name if device.index < len(cards) else device.kind


def package_version(package: str) -> str:
    """Return the version of an installed package, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """Return the processor's name and its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(
        next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags", "Features")
    )


def _device_name(device: Device) -> str:
    """Return the name of another kind of device, as Paddle knows it."""
    if device.kind != "dcu":  # plug-ins tell no names
        return device.kind
    import paddle

    return str(paddle.device.cuda.get_device_name(device.index))

"""The identity of a machine: what decides, beside the model, how fast an engine is here and how exact."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlcls_ray.devices import Device


def device_identity(device: Device) -> str:
    """Return what tells one type of processor or device from another."""
    return _processor() if device.is_cpu else _device_name(device)


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
    """Return the name of a GPU, as its driver reports it."""
    import paddle

    return str(paddle.device.cuda.get_device_name(device.index))

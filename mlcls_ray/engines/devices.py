"""The devices of this machine: how many there are, and whether a job can use them. There is no fall-back to the CPU."""

from __future__ import annotations

from collections.abc import Iterator

from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.engines.checks.check import Check, Probes, raise_first
from mlcls_ray.engines.checks.nvidia import VARIABLE, check_cards, check_driver, nvidia_checks
from mlcls_ray.engines.nvidia import visible_cards
from mlcls_ray.errors import UsageError
from mlcls_ray.field_types import EngineOrAuto

ON_PADDLE = ("paddle", "tensorrt")
"""Engines that reach NVIDIA cards through a Paddle that was built for CUDA."""
ELSEWHERE = "from Paddle's own package index"
PADDLE_FOR_CUDA = f"paddlepaddle-gpu 3 or newer {ELSEWHERE} (PyPI has 2.6.2 of 2024, which cannot read inference.json)"


def count_devices(device: Device, probes: Probes | None = None) -> int:
    """Count the devices of its kind on this machine: NVIDIA's by their driver, the others by Paddle.

    Raises:
        UsageError: Paddle was built without the kind, and names the package to install; or NVIDIA's driver does not answer.
    """
    if device.kind != "gpu":
        return _paddle_devices(device)
    probes = probes or Probes()
    driver = probes.driver()
    raise_first(device, [check_driver(driver)])
    return len(visible_cards(driver.cards, probes.environ.get(VARIABLE)))


def check_device(
    device: Device, engine: EngineOrAuto = "auto", probes: Probes | None = None, tries_network: bool = True
) -> None:
    """Check that an engine can score on the device on this machine.

    Args:
        tries_network: run a network on the device in another process, which takes seconds.

    Raises:
        UsageError: it cannot; with the way out.
    """
    raise_first(device, device_checks(device, engine, probes or Probes(), tries_network))


def device_checks(device: Device, engine: EngineOrAuto, probes: Probes, tries_network: bool = True) -> Iterator[Check]:
    """Check a device step by step; nothing on a CPU."""
    if device.is_cpu:
        return
    if device.kind != "gpu":
        yield _paddle_check(device)
    elif engine in ON_PADDLE:
        driver = probes.driver()
        yield check_driver(driver)
        yield check_cards(device, driver, probes.environ)
        yield _paddle_check(device)
    else:
        yield from nvidia_checks(device, probes, tries_network)


def check_paddle_device(device: Device) -> None:
    """Check that Paddle can use the device on this machine.

    Raises:
        UsageError: names the package to install, or the number of devices there are.
    """
    if not device.is_cpu:
        raise_first(device, [_paddle_check(device)])


def _paddle_check(device: Device) -> Check:
    try:
        count = _paddle_devices(device)
    except UsageError as error:
        message, _, way_out = str(error).removeprefix(f"device '{device}': ").partition("; ")
        return Check(name="Paddle", state="missing", message=message, way_out=way_out)
    if max(device.indices, default=0) >= count:
        message = f"Paddle sees {count} {device.kind} device(s) on this machine"
        return Check(name="Paddle", state="missing", message=message)
    return Check(name="Paddle", state="ok", message=f"sees {count} {device.kind} device(s)")


def _paddle_devices(device: Device) -> int:
    """Count the devices of its kind that Paddle sees on this machine.

    Raises:
        UsageError: Paddle is not installed, or was built without the kind; names the package to install.
    """
    package = PADDLE_FOR_CUDA if device.kind == "gpu" else f"{DEVICE_KINDS[device.kind].package} {ELSEWHERE}"
    try:
        import paddle  # seconds to load; only where a device is really used
    except ImportError:
        raise UsageError(f"device '{device}': Paddle is not installed; install {package}") from None
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
        raise UsageError(f"device '{device}': this Paddle was built without {device.kind}; install {package}")
    return int(count)

"""The devices that Paddle sees on this machine."""

from __future__ import annotations

from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.errors import UsageError


def count_devices(device: Device) -> int:
    """Count the devices of its kind that Paddle sees on this machine.

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
        package = DEVICE_KINDS[device.kind].package
        raise UsageError(f"device '{device}': this Paddle was built without {device.kind}; install {package}")
    return int(count)


def check_device(device: Device) -> None:
    """Check that Paddle can use the device on this machine. There is no fall-back to CPU.

    Raises:
        UsageError: names the package to install, or the number of devices there are.
    """
    if not device.is_cpu and max(device.indices, default=0) >= (count := count_devices(device)):
        raise UsageError(f"device '{device}': Paddle sees {count} {device.kind} device(s) on this machine")

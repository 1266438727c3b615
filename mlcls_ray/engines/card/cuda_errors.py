"""Errors of CUDA, as CuPy, nvImageCodec and ONNX Runtime word them, made into the two kinds that a worker acts on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlcls_ray.errors import DeviceLostError, short_message

LOST = {
    46: "DevicesUnavailable",
    100: "NoDevice",
    214: "ECCUncorrectable",
    220: "NvlinkUncorrectable",
    700: "IllegalAddress",
    702: "LaunchTimeout",
    710: "Assert",
    714: "HardwareStackError",
    715: "IllegalInstruction",
    716: "MisalignedAddress",
    717: "InvalidAddressSpace",
    718: "InvalidPc",
    719: "LaunchFailure",
    721: "ContainedError",
    999: "Unknown",
}
"""Errors after which a process can do nothing more with its card, by CUDA's numbers and names. Most "leave the process in an inconsistent
state", says CUDA's documentation; 100, 719 and 999 are what a card gives that fell off the bus."""

_TEXTS = (
    "unspecified launch failure", "unknown error", "launch_failed", "illegal memory access", "uncorrectable ecc", "uncorrectable nvlink",
    "fallen off the bus", "device-side assert", "illegal instruction", "misaligned address", "launch timed out", "no cuda-capable device",
    "device(s) is/are busy or unavailable", "hardware stack error", "operation not supported on global/shared address space",
)  # fmt: skip
"""Their descriptions, where a message has no number."""
_NUMBER = re.compile(r"CUDA (?:failure|error|runtime failure)\D{0,4}(\d+)", re.IGNORECASE)
_OUT_OF_MEMORY = ("out of memory", "memoryallocation", "error_out_of_memory")


def is_device_lost(error: BaseException) -> bool:
    """Tell whether an error of CUDA, by whichever library, means that this process has lost its card."""
    if isinstance(error, DeviceLostError):
        return True
    message = str(error)
    numbers = {getattr(error, "status", None), *map(int, _NUMBER.findall(message))}
    lowered = message.lower()
    # CUDA's unknown errors only: a library may use these two words of anything.
    is_cuda = "cuda" in lowered or isinstance(getattr(error, "status", None), int)
    return is_cuda and (
        not numbers.isdisjoint(LOST)
        or any(f"cudaError{name}:" in message for name in LOST.values())
        or any(text in lowered for text in _TEXTS)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the card's memory is full."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or any(text in message for text in _OUT_OF_MEMORY)


@contextmanager
def translated(device: str) -> Iterator[None]:
    """Raise CUDA's errors as `MemoryError`, whose message says "out of memory", or `DeviceLostError`; let others through.

    Args:
        device: its name in the messages.
    """
    try:
        yield
    except Exception as error:
        if is_device_lost(error):
            raise DeviceLostError(f"{device} stopped answering: {short_message(error)}") from error
        if is_out_of_memory(error) and not isinstance(error, MemoryError):
            raise MemoryError(f"{device} is out of memory: {short_message(error)}") from error
        raise

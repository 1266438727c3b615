"""Read from an error whether it is about the device: its memory is too small, or it is lost.

Libraries raise what their C++ side maps to, mostly RuntimeError, so the words decide: those of CUDA, cuDNN, cuBLAS, CuPy, nvImageCodec,
ONNX Runtime and Paddle.
"""

from __future__ import annotations

import re

from mlcls_ray.errors import DeviceLostError

OUT_OF_MEMORY = (
    "out of memory", "out_of_memory", "resourceexhausted", "resource_exhausted", "bad_alloc", "cannot allocate memory",
    "failed to allocate", "alloc_failed", "allocation_failed", "memoryallocation", "is smaller than requested bytes",
    "customdevice error, the error code is : 2",
)  # fmt: skip
"""Words in lower case. The last ones are those of ONNX Runtime's arena (`Available memory of X is smaller than requested bytes of Y`), and
of Paddle where a plug-in (NPU …) fails to allocate."""
LOST = {
    46: "DevicesUnavailable",
    100: "NoDevice",
    214: "ECCUncorrectable",
    220: "NvlinkUncorrectable",
    226: "Contained",
    700: "IllegalAddress",
    702: "LaunchTimeout",
    709: "ContextIsDestroyed",
    710: "Assert",
    714: "HardwareStackError",
    715: "IllegalInstruction",
    716: "MisalignedAddress",
    717: "InvalidAddressSpace",
    718: "InvalidPc",
    719: "LaunchFailure",
    721: "TensorMemoryLeak",
    999: "Unknown",
}
"""Errors after which a process can do nothing more with its card, by CUDA's numbers and names. Most "leave the process in an inconsistent
state", says CUDA's documentation; 100, 719 and 999 are what a card gives that fell off the bus."""
LOST_WORDS = (
    "unspecified launch failure", "launch_failed", "illegal memory access", "illegal_address", "uncorrectable ecc", "ecc_uncorrectable",
    "uncorrectable nvlink", "fallen off the bus", "gpu is lost", "device-side assert", "illegal instruction", "misaligned address",
    "launch timed out", "launch_timeout", "no cuda-capable device", "device(s) is/are busy or unavailable", "hardware stack error",
    "operation not supported on global/shared address space", "cuda_error_unknown", "context is destroyed",
)  # fmt: skip
"""Their descriptions in lower case, where a message has no number."""
NUMBER = re.compile(r"cuda\s*(?:runtime|driver)?\s*(?:failure|error)\D{0,4}(\d+)", re.IGNORECASE)
"""`CUDA failure 719: …` is ONNX Runtime's, `CUDA error(719), …` Paddle's."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether there was too little memory, on the device or on the host: a smaller batch may go through."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Tell whether this process cannot use its device any more: whatever it calls next fails too."""
    if isinstance(error, DeviceLostError):
        return True
    message, status = str(error), getattr(error, "status", None)  # CuPy's errors have their number there
    if not isinstance(status, int) and "cuda" not in message.lower():
        return False  # other libraries may use such words too
    numbers = {status, *map(int, NUMBER.findall(message))}
    return (
        not numbers.isdisjoint(LOST)
        or any(f"cudaError{name}:" in message for name in LOST.values())
        or any(words in message.lower() for words in LOST_WORDS)
        or ("unknown error" in message.lower() and not NUMBER.search(message))
    )

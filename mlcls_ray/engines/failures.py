"""What an engine's error says about its device: out of memory, or lost. Engines raise what their C++ side maps to, so its words decide."""

from __future__ import annotations

import re

OUT_OF_MEMORY = (
    "out of memory", "out_of_memory", "resourceexhausted", "resource_exhausted", "bad_alloc", "cannot allocate memory",
    "failed to allocate", "alloc_failed", "allocation_failed", "memoryallocation", "is smaller than requested bytes",
)  # fmt: skip
"""Words by which CUDA, cuDNN, cuBLAS, cupy, ONNX Runtime's arena, Paddle, C++ and the system report it, in lower case."""
LOST = (
    "unspecified launch failure", "illegal memory access", "illegal address", "illegal instruction", "misaligned address",
    "device-side assert", "invalid program counter", "launch timed out", "launch_timeout", "launch_failed", "launchfailure",
    "illegaladdress", "illegal_address", "uncorrectable", "device is lost", "gpu is lost", "fallen off the bus", "devices unavailable",
    "devicesunavailable", "cudaerrorunknown", "cuda_error_unknown", "hardware stack error", "context is destroyed",
)  # fmt: skip
"""Words of errors after which a process can use its device no more: whatever it calls next fails too."""
LOST_CODES = frozenset({46, 100, 101, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999})
"""Numbers of such errors (CUDA's `driver_types.h`, from 11 to 13): no device, ECC, a failed launch, an unknown error."""
CODE = re.compile(r"cuda(?:\s+runtime|\s+driver)?\s+(?:failure|error)\s*[:(#]?\s*(\d+)", re.IGNORECASE)
"""`CUDA failure 719: …` (ONNX Runtime), `CUDA error(719), …` (Paddle), `CUDA error 719 …`, `CUDA error: 719`."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether there was too little memory, on the device or on the host: a smaller batch may go through."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Tell whether the device cannot be used any more by this process."""
    message = str(error).lower()
    if any(words in message for words in LOST):
        return True
    return any(int(code) in LOST_CODES for code in CODE.findall(message))

"""What libraries say when a card's memory is full, or the card is lost."""

from __future__ import annotations

import pytest

from mlcls_ray.engines.failures import is_device_lost, is_out_of_memory
from mlcls_ray.errors import DeviceLostError

OUT_OF_MEMORY = [
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_allocator.cc ; line=76 ; expr=cudaMalloc((void**)&p, size);",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h ; expr=cublasCreate(&cublas_handle_);",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
    "Non-zero status code returned while running Conv node. Name:'Conv_1' Status Message: bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 4294967296",
    "BFCArena: Available memory of 1024 is smaller than requested bytes of 4096",
    "Out of memory allocating 8,589,934,592 bytes (allocated so far: 0 bytes).",
    "cudaErrorMemoryAllocation: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "(External) Out of memory error on GPU 0. Cannot allocate 2.0GB memory on GPU 0",
    "ResourceExhaustedError: Out of memory error on GPU 0",
    "std::bad_alloc",
    "ExternalError:  CustomDevice error, the error code is : 2.  (at /paddle/paddle/phi/backends/custom/custom_device.cc:387)",
]
LOST = [
    "CUDA failure 999: unknown error ; GPU=0 ; hostname=h ; expr=cudaSetDevice(info_.device_id);",
    "CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=h ; expr=cudaStreamSynchronize(stream);",
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h",
    "CUDA error 719",
    "(External) CUDA error(719), unspecified launch failure. \n  [Hint: Please search for the error code(719) on website]",
    "CUDA error: device-side assert triggered",
    "cudaErrorIllegalAddress: an illegal memory access was encountered",
    "cudaErrorUnknown: unknown error",
    "CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
    "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1",
    "CUDA failure 214: uncorrectable ECC error encountered",
]
NEITHER = [
    "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
    "CUDA failure 98: invalid device function ; GPU=0",
    "CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0",
    "Invalid rank for input: pixels Got: 3 Expected: 4",
    "the server answered 700: unknown error",
    "",
]


class NumberedError(RuntimeError):
    """An error as CuPy raises it, with CUDA's number."""

    def __init__(self, status: int) -> None:
        super().__init__("something")
        self.status = status


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_memory_is_full(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))
    assert not is_device_lost(RuntimeError(message))


@pytest.mark.parametrize("message", LOST)
def test_a_card_is_lost(message: str) -> None:
    assert is_device_lost(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize("message", NEITHER)
def test_other_errors_are_neither(message: str) -> None:
    assert not is_device_lost(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError(message))


def test_by_type_and_number() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_device_lost(DeviceLostError("gone"))
    assert is_device_lost(NumberedError(719)) and not is_device_lost(NumberedError(2))

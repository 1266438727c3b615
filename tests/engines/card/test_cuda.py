"""CUDA's errors, and the messages on a machine without a card."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from mlcls_ray.engines.card.cuda import has_jpeg_engines
from mlcls_ray.engines.card.cuda_errors import translated
from mlcls_ray.engines.card.decoder import decoder_problem
from mlcls_ray.engines.failures import is_device_lost, is_out_of_memory
from mlcls_ray.errors import DeviceLostError

no_cupy = pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here")


class StatusError(RuntimeError):
    """As CuPy's: the number is an attribute, the message has the name."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def test_a_card_that_is_lost() -> None:
    with (
        pytest.raises(DeviceLostError, match=r"^gpu:1 stopped answering: cudaErrorUnknown") as raised,
        translated("gpu:1"),
    ):
        raise StatusError(999, "cudaErrorUnknown: unknown error")
    assert is_device_lost(raised.value) and not is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        StatusError(2, "cudaErrorMemoryAllocation: out of memory"),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        MemoryError("Out of memory allocating 1,024 bytes (allocated so far: 0 bytes, limit set to: 512 bytes)."),
    ],
    ids=str,
)
def test_a_card_that_is_full(error: Exception) -> None:
    with pytest.raises(MemoryError, match="(?i)out of memory") as raised, translated("gpu:1"):
        raise error
    assert is_out_of_memory(raised.value) and not is_device_lost(raised.value)


def test_another_error_stays_what_it_is() -> None:
    error = StatusError(1, "cudaErrorInvalidValue: invalid argument")
    with pytest.raises(StatusError) as raised, translated("gpu:1"):
        raise error
    assert raised.value is error


@no_cupy
def test_without_the_packages_the_problem_has_its_way_out() -> None:
    problem = decoder_problem(0)
    assert problem is not None and "\n" not in problem
    assert "CuPy, which is not installed" in problem and "pip install 'mlcls-ray[gpu]'" in problem
    assert not has_jpeg_engines(0)


@no_cupy
def test_a_limit_that_would_refuse_every_image_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIMGCODEC_MAX_IMAGE_SIZE", "500000000")
    decoder_problem(0)
    assert "NVIMGCODEC_MAX_IMAGE_SIZE" not in os.environ


def test_the_kernels_are_part_of_the_package() -> None:
    from mlcls_ray.engines.card.resize import KERNELS, SOURCE

    source = SOURCE.read_text("utf-8")
    assert all(f"void {kernel}(" in source for kernel in KERNELS)
    assert "engines/card/*.cu" in (Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8")

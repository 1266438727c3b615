"""ONNX Runtime on an accelerator: full batches of one shape, pixels bound where they lie, scores bound to host memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import DevicePixels, Pixels
from mlcls_ray.engines.checks.nvidia import REPLACE
from mlcls_ray.errors import UsageError, short_message

HINT = "`mlcls doctor --device gpu` says what is missing"


class Accelerator(NamedTuple):
    """A kind of accelerator, as ONNX Runtime reaches it."""

    provider: str
    """ONNX Runtime's name of it."""
    memory: str
    """The name of its memory in an IO binding."""
    pad: Callable[[DevicePixels, int], DevicePixels]
    """Copies pixels on the device into a batch of so many images there. The copy is complete when it returns."""


def pad_on_card(pixels: DevicePixels, batch: int) -> DevicePixels:
    """Copy uint8 [n, H, W, 3] on an NVIDIA card to the start of [batch, H, W, 3] there; the rest is zeros."""
    import cupy

    source = cupy.asarray(pixels)  # a view: nothing is copied
    with source.device:
        padded: DevicePixels = cupy.zeros((batch, *source.shape[1:]), cupy.uint8)
        padded[: len(source)] = source  # type: ignore[index]
        cupy.cuda.get_current_stream().synchronize()  # ONNX Runtime has a stream of its own
    return padded


def put_on_card(pixels: np.ndarray, index: int) -> DevicePixels:
    """Copy uint8 [N, H, W, 3] to an NVIDIA card. The copy is complete when it returns."""
    import cupy

    with cupy.cuda.Device(index):
        copied: DevicePixels = cupy.asarray(pixels)
        cupy.cuda.get_current_stream().synchronize()
    return copied


CUDA = Accelerator("CUDAExecutionProvider", "cuda", pad_on_card)


def cuda_options(index: int, precision: str, is_brief: bool) -> dict[str, str]:
    """Return the CUDA provider's options.

    fp32 is honest: without `use_tf32=0` convolutions and products round their inputs to 10 bits. `prefer_nhwc` was faster for each network
    but CLIP (within 1 %). cuDNN's EXHAUSTIVE search runs once for each convolution and batch shape, 5 to 13 s on an H200 for a network;
    HEURISTIC starts sooner. The memory arena grows by what is needed instead of by doubling, because workers may share a card.

    No CUDA graph: it reads its input at one address, which would be one more copy of each batch, and saves the launches of some hundred
    kernels, about a millisecond beside the 10 to 100 ms of a batch.
    """
    return {
        "device_id": str(index),
        "use_tf32": "1" if precision == "tf32" else "0",
        "prefer_nhwc": "1",
        "cudnn_conv_algo_search": "HEURISTIC" if is_brief else "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "do_copy_in_default_stream": "1",
    }


def check_package(available: Sequence[str], accelerator: Accelerator, device: str, precision: str) -> None:
    """Check that the installed package has the accelerator's provider.

    Raises:
        UsageError: it has not: it is the package for CPUs.
    """
    if accelerator.provider not in available:
        raise UsageError(
            f"engine onnxruntime: this package cannot run on '{device}' in {precision}; for gpu install onnxruntime-gpu in place of "
            f"onnxruntime: {REPLACE}"
        )


def check_session(providers: Sequence[str], accelerator: Accelerator, device: str) -> None:
    """Check that a session came up on the accelerator. ONNX Runtime takes the CPU with a warning only, 100 times slower.

    Raises:
        UsageError: it did not.
    """
    if not providers or providers[0] != accelerator.provider:
        raise UsageError(
            f"engine onnxruntime: the session for '{device}' came up on {providers[0] if providers else 'nothing'} instead of "
            f"{accelerator.provider}: the driver or a CUDA or cuDNN library is missing; {HINT}"
        )


def pad(pixels: Pixels, batch: int, pad_on_device: Callable[[DevicePixels, int], DevicePixels]) -> Pixels:
    """Fill a batch up with zeros, where the pixels lie. A full one is returned as it is."""
    if len(pixels) == batch:
        return pixels
    if isinstance(pixels, np.ndarray):
        padded = np.zeros((batch, *pixels.shape[1:]), np.uint8)
        padded[: len(pixels)] = pixels
        return padded
    return pad_on_device(pixels, batch)


def bind_pixels(binding: Any, name: str, pixels: Pixels, memory: str, index: int) -> None:
    """Bind a batch to the graph's input: its own address on the device, or an array in host memory, which is copied when the graph runs.

    Raises:
        ValueError: the pixels on the device are not uint8 in C order.
    """
    if isinstance(pixels, np.ndarray):
        binding.bind_cpu_input(name, np.ascontiguousarray(pixels))
        return
    interface = pixels.__cuda_array_interface__
    usual = tuple(int(np.prod(pixels.shape[axis + 1 :])) for axis in range(len(pixels.shape)))
    if np.dtype(interface["typestr"]) != np.uint8 or tuple(interface.get("strides") or usual) != usual:
        raise ValueError(f"pixels on the device are {interface['typestr']} with strides {interface.get('strides')}")
    binding.bind_input(name, memory, index, np.uint8, list(pixels.shape), interface["data"][0])


class DeviceSession:
    """A session over a graph with the input uint8 [N, H, W, 3]. A batch is padded to the next size that was warmed up, because libraries
    look for the kernels of each new shape, for seconds."""

    def __init__(
        self, onnxruntime: Any, graph: Path, device: Device, options: dict[str, str], accelerator: Accelerator = CUDA
    ) -> None:
        """`options`: the provider's.

        Raises:
            UsageError: the session cannot be made, or came up on another device.
        """
        self._index, self._accelerator = device.index, accelerator
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1  # the CPU only launches
        settings.log_severity_level = 3
        providers = [(accelerator.provider, options)]
        try:
            self._session = onnxruntime.InferenceSession(str(graph), settings, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime has a type for each status, and CUDA's errors are RuntimeErrors
            message = f"engine onnxruntime cannot start on '{device}': {short_message(error)}; {HINT}"
            raise UsageError(message) from error
        check_session(self._session.get_providers(), accelerator, str(device))
        (self.input,) = self._session.get_inputs()
        self.outputs = self._session.get_outputs()
        self.sizes: set[int] = set()

    def warm_up(self, size: int) -> None:
        """Score one batch of this size. The other sizes are forgotten if they are larger: memory may have run out with them."""
        self.sizes = {other for other in self.sizes if other < size} | {size}
        self.run(np.zeros((size, *self.input.shape[1:]), np.uint8))

    def run(self, pixels: Pixels) -> list[np.ndarray]:
        """Return the graph's outputs, each with a row for each image."""
        size = min((size for size in self.sizes if size >= len(pixels)), default=len(pixels))
        self.sizes.add(size)
        binding = self._session.io_binding()
        bound = pad(pixels, size, self._accelerator.pad)
        bind_pixels(binding, self.input.name, bound, self._accelerator.memory, self._index)
        for output in self.outputs:
            binding.bind_output(output.name, "cpu")
        # It returns when the outputs are in host memory, so the pixels may be used again; meanwhile it does not hold the GIL.
        self._session.run_with_iobinding(binding)
        return [output.numpy()[: len(pixels)] for output in binding.get_outputs()]

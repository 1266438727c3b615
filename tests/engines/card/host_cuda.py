"""Stand-ins for the modules `cupy` and `nvidia.nvimgcodec`, as `CudaCard` uses them: host memory, simplejpeg, g++'s kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlcls_ray.images.jpeg_header import read_jpeg_header
from tests.engines.card.host_card import decode_jpeg, kernels


class Status(RuntimeError):
    """CuPy's CUDARuntimeError."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Array:
    """cupy.ndarray, over numpy's."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, memptr: np.ndarray) -> None:
        self.values = memptr.view(dtype).reshape(shape)
        self.shape, self.nbytes = self.values.shape, self.values.nbytes
        self.data = SimpleNamespace(memset_async=self.fill)

    def fill(self, value: int, size: int, stream: Any) -> None:
        self.values.reshape(-1).view(np.uint8)[:size] = value

    def set(self, values: np.ndarray, stream: Any) -> None:
        assert values.flags.c_contiguous and values.shape == self.shape and values.dtype == self.values.dtype
        self.values[...] = values

    def get(self, stream: Any) -> np.ndarray:
        return self.values.copy()

    def __getitem__(self, rows: Any) -> Array:
        part = self.values[rows]
        return Array(part.shape, part.dtype, part.reshape(-1).view(np.uint8))


class Stream:
    ptr = 7

    def __init__(self, card: Cupy) -> None:
        self.card = card

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def synchronize(self) -> None:
        if self.card.lost:
            raise Status(719, "cudaErrorLaunchFailure: unspecified launch failure")


class Cupy:
    """One card. `free` bytes of its memory are free, `lost` makes it fail."""

    def __init__(self, cards: int = 1, free: int = 70 << 30) -> None:
        self.cards, self.free, self.lost = cards, free, False
        self.limit = 0
        self.released = 0
        self.ndarray = Array
        self.cuda = SimpleNamespace(
            Device=self.device,
            Stream=lambda non_blocking: Stream(self),
            MemoryPool=lambda: SimpleNamespace(
                set_limit=self.set_limit, malloc=self.malloc, free_all_blocks=self.free_all_blocks
            ),
            runtime=SimpleNamespace(
                getDeviceProperties=lambda index: {"name": b"NVIDIA Host"}, memGetInfo=lambda: (self.free, 80 << 30)
            ),
        )

    def device(self, index: int) -> Any:
        if index >= self.cards:
            raise Status(101, "cudaErrorInvalidDevice: invalid device ordinal")
        return nullcontext()

    def set_limit(self, size: int) -> None:
        self.limit = size

    def malloc(self, size: int) -> np.ndarray:
        if size > self.limit:
            raise MemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: 0 bytes).")
        return np.full(size, 0xCD, np.uint8)

    def free_all_blocks(self) -> None:
        self.released += 1

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:  # CuPy's name
        assert "--fmad=false" in options and "resize_first" in code
        return SimpleNamespace(
            get_function=lambda name: lambda grid, block, arguments: launch(name, grid, *block, arguments)
        )


def launch(name: str, grid: Sequence[int], block: int, arguments: Sequence[Any]) -> None:
    converted = [
        ctypes.c_void_p(argument.values.ctypes.data) if isinstance(argument, Array) else ctypes.c_int(int(argument))
        for argument in arguments
    ]
    getattr(kernels(), f"run_{name}")(*map(ctypes.c_int, grid), ctypes.c_int(block), *converted)


class Image:
    """nvImageCodec's: its memory grows, and is used again."""

    def __init__(self) -> None:
        self.memory = np.zeros(0, np.uint8)

    def fill(self, image: np.ndarray) -> None:
        if image.size > self.capacity:
            self.memory = np.zeros(image.size, np.uint8)
        self.memory[: image.size] = image.reshape(-1)
        self.__cuda_array_interface__ = {
            "shape": image.shape, "strides": None, "typestr": "|u1", "data": (self.memory.ctypes.data, False), "version": 3
        }  # fmt: skip

    @property
    def capacity(self) -> int:
        return self.memory.size


class Codec:
    """nvImageCodec. `kinds`: backends that decode here; `options_seen`: of the decoders that were opened."""

    BackendKind = SimpleNamespace(HW_GPU_ONLY="HW_GPU_ONLY", GPU_ONLY="GPU_ONLY", HYBRID_CPU_GPU="HYBRID_CPU_GPU")
    ColorSpec = SimpleNamespace(SRGB="SRGB")

    def __init__(self, kinds: Sequence[str] = ("HW_GPU_ONLY", "HYBRID_CPU_GPU"), refuses_strict: bool = False) -> None:
        self.kinds, self.refuses_strict = kinds, refuses_strict
        self.opened: list[tuple[tuple[str, ...], str]] = []
        self.asked: list[tuple[tuple[str, ...], int]] = []
        """The kinds of each decoder that was asked, and for how many images."""
        self.none: set[bytes] = set()
        """Images that it does not decode."""

    def DecodeParams(self, apply_exif_orientation: bool, color_spec: str, allow_any_depth: bool) -> object:
        assert not apply_exif_orientation and not allow_any_depth
        return "params"

    def Backend(self, kind: str) -> str:
        return kind

    def Decoder(self, device_id: int, max_num_cpu_threads: int, backends: Sequence[str], options: str) -> Any:
        assert ":fancy_upsampling=1" in options
        self.opened.append((tuple(backends), options))
        if self.refuses_strict and "extra_flags" in options:
            raise RuntimeError("Could not create decoder. The requested backends are not supported.")
        kinds = tuple(kind for kind in backends if kind in self.kinds)
        return SimpleNamespace(decode=lambda data, **options: self.decode(data, kinds, **options))

    def decode(
        self,
        data: list[bytes],
        kinds: Sequence[str],
        images: Sequence[Image | None],
        params: object,
        cuda_stream: int,
    ) -> list[Image | None]:
        self.asked.append((tuple(kinds), len(data)))
        assert params == "params" and cuda_stream == Stream.ptr and len(images) == len(data)
        result: list[Image | None] = []
        for image_bytes, kept in zip(data, images, strict=True):
            header = read_jpeg_header(image_bytes)
            is_known = kinds and image_bytes not in self.none
            if kinds == ("HW_GPU_ONLY",) and header is not None and header.is_progressive:
                is_known = False  # the engines decode baseline JPEGs only
            decoded = decode_jpeg(image_bytes) if is_known else None
            if decoded is None:
                result.append(None)
                continue
            image = kept or Image()
            image.fill(decoded)
            result.append(image)
        return result

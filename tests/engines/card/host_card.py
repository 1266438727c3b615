"""A card that is made of host memory: the CPU's decoder, and the card's kernels compiled by g++. Its memory has fences around it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from mlcls_ray.engines.card.backend import CardImage
from mlcls_ray.engines.card.resize import SOURCE

FENCE = 64
FENCE_BYTE, GARBAGE_BYTE = 0xA5, 0xCD


@cache
def kernels() -> ctypes.CDLL:
    """Compile the kernels once per session: the tests' Ray workers find the library in the same home."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++, which compiles the card's kernels for the CPU")
    home = Path(os.environ["MLCLS_HOME"])
    library = home / "kernels.so"
    if library.exists():
        return ctypes.CDLL(str(library))
    unfinished = Path(tempfile.mkdtemp(prefix="kernels-", dir=home)) / "kernels.so"
    source = Path(__file__).with_name("kernels.cpp")
    # -ffp-contract=off: as --fmad=false on the card
    flags = ["-O2", "-std=c++17", "-Wall", "-Wno-unknown-pragmas", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, f"-I{SOURCE.parent}", str(source), "-o", str(unfinished)], check=True)
    unfinished.rename(library)
    return ctypes.CDLL(str(library))


class HostCard:
    """See `CardBackend`. `calls` has the number of images of each decode."""

    name = "gpu:0 (host memory)"
    image_bytes = 512 << 20

    def __init__(
        self, decode: Callable[[bytes], np.ndarray | None] | None = None, room: int | None = None, row_padding: int = 0
    ) -> None:
        """`room`: images that fit its memory at once. `row_padding`: bytes between the rows of decoded images."""
        self.kernels = kernels()
        self.decode_image = decode or decode_jpeg
        self.room = room
        self.row_padding = row_padding
        self.calls: list[int] = []
        self.fenced: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        memory = np.full(size + 2 * FENCE, FENCE_BYTE, np.uint8)
        memory[FENCE : FENCE + size] = GARBAGE_BYTE
        self.fenced.append(memory)
        return memory[FENCE : FENCE + size].view(dtype).reshape(shape)

    def upload(self, values: np.ndarray) -> np.ndarray:
        array = self.empty(values.shape, values.dtype.type)
        array[...] = values
        return array

    def download(self, values: np.ndarray) -> np.ndarray:
        return values.copy()

    def write_rows(self, pixels: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
        pixels[rows] = values

    def clear(self, pixels: np.ndarray) -> None:
        pixels[...] = 0

    def decode(self, images: Sequence[bytes]) -> list[CardImage | None]:
        self.calls.append(len(images))
        if self.room is not None and len(images) > self.room:
            raise MemoryError("gpu:0 is out of memory")
        decoded = [self.decode_image(image_bytes) for image_bytes in images]
        return [None if image is None else self.place(image) for image in decoded]

    def place(self, image: np.ndarray) -> CardImage:
        """Put an image, uint8 [H, W, 3], into the card's memory."""
        height, width, _ = image.shape
        row_bytes = 3 * width + self.row_padding
        memory = self.empty((height, row_bytes), np.uint8)
        memory[:, : 3 * width] = image.reshape(height, -1)
        return CardImage(memory.ctypes.data, width, height, row_bytes, memory)

    def launch(self, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any]) -> None:
        converted = [
            ctypes.c_void_p(argument.ctypes.data) if isinstance(argument, np.ndarray) else ctypes.c_int(int(argument))
            for argument in arguments
        ]
        getattr(self.kernels, f"run_{kernel}")(*map(ctypes.c_int, grid), ctypes.c_int(block), *converted)

    def synchronize(self) -> None:
        """Check that nothing was written outside an array since the last time."""
        for memory in self.fenced:
            assert (memory[:FENCE] == FENCE_BYTE).all() and (memory[-FENCE:] == FENCE_BYTE).all()
        self.fenced.clear()

    def release(self) -> None:
        self.synchronize()


def decode_jpeg(image_bytes: bytes) -> np.ndarray | None:
    """Decode as the card does: not turned upright, None where it cannot."""
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(image_bytes, "RGB", strict=True)
    except ValueError:
        return None
    return image

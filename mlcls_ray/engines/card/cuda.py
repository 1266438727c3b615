"""`CudaCard`: an NVIDIA card, by CuPy (memory, kernels) and nvImageCodec (JPEG decoder)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from mlcls_ray.engines.card.backend import CardImage
from mlcls_ray.engines.card.cuda_errors import translated
from mlcls_ray.engines.card.probe import probes
from mlcls_ray.engines.card.resize import KERNELS, SOURCE
from mlcls_ray.errors import RunError, UsageError, short_message

WAY_OUT = "pip install 'mlcls-ray[gpu]'"
DECODE_THREADS = 4
"""CPU threads of nvImageCodec. They read headers, and a part of the Huffman code of progressive JPEGs."""
STRICT = 4
"""nvJPEG's NVJPEG_FLAGS_BITSTREAM_STRICT: refuse a stream that breaks the standard, so that the CPU decodes it or says what is wrong."""
OPTIONS = (f":fancy_upsampling=1 :extra_flags={STRICT}", ":fancy_upsampling=1")
"""Options of the decoder, the best first. Fancy upsampling is what libjpeg does; it has been off by default in some versions."""
BACKENDS = (("HW_GPU_ONLY",), ("GPU_ONLY", "HYBRID_CPU_GPU"))
"""Kinds of decoders, each group in a decoder of its own: the JPEG engines, which not every card has; then the card's cores with the CPU,
for progressive JPEGs and what else the engines leave. In one decoder the kinds share each batch, by the size of its first one: an H200
decoded 5,000 photographs a second after a first batch of two, whatever came later; its engines alone decode 14,500 to 16,400, in batches
of 64 and of 256. Without CPU_ONLY, nothing falls back to the CPU in silence."""
POOL_BYTES = 4 << 30
"""Memory of the card for pixels and buffers, at most; an eighth of the card if that is less. The models need the rest."""
IMAGE_BYTES = 512 << 20
"""Memory for decoded images, and for what their resize needs, at once; a sixteenth of the card if that is less."""
KEPT_BYTES = 1 << 30
"""Memory of decoded images that is kept for the next ones, at most."""
LOW_MEMORY = 256 << 20
"""Free memory below which images that were not decoded are thought to have found no room."""


class CudaCard:
    """One NVIDIA card. See `CardBackend`.

    Everything is queued on one stream of its own. An array's memory is used again when the array is dropped, so whoever reads it on another
    stream waits for that stream first.
    """

    def __init__(self, index: int, libraries: tuple[Any, Any] | None = None) -> None:
        """Open the card `index` of those that this process sees.

        Args:
            libraries: the modules `cupy` and `nvidia.nvimgcodec`; None: import them.

        Raises:
            UsageError: a package, a library or the card is missing; says what to install or to choose.
        """
        self.cupy, self.codec = libraries or load_libraries()
        with _opening(index):
            self.device = self.cupy.cuda.Device(index)
            with self.device:
                name = self.cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
                self.name = f"gpu:{index} ({name})"
                self.stream = self.cupy.cuda.Stream(non_blocking=True)
                self.pool = self.cupy.cuda.MemoryPool()
                total = self.cupy.cuda.runtime.memGetInfo()[1]
                self.pool.set_limit(size=min(POOL_BYTES, total // 8))
                self.image_bytes = min(IMAGE_BYTES, total // 16)
                # A fused multiply-add would round once where Pillow rounds twice.
                module = self.cupy.RawModule(code=SOURCE.read_text("utf-8"), options=("--fmad=false",))
                self.kernels = {name: module.get_function(name) for name in KERNELS}
        self.params = self.codec.DecodeParams(
            apply_exif_orientation=False,  # the resize does it, as the CPU does
            color_spec=self.codec.ColorSpec.SRGB,
            allow_any_depth=False,
        )
        self.kept: list[Any] = []
        """nvImageCodec's images of the last call, whose memory the next call uses."""
        self.decoders: list[Any] = []
        """Each decodes what those before it did not."""
        self.options = self._open_decoders(index)
        """Those of each decoder."""

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        with self._current():
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            return self.cupy.ndarray(shape, dtype, memptr=self.pool.malloc(size))

    def upload(self, values: np.ndarray) -> Any:
        array = self.empty(values.shape, values.dtype.type)
        with self._current():
            array.set(np.ascontiguousarray(values), stream=self.stream)
        return array

    def download(self, values: Any) -> np.ndarray:
        with self._current():
            result: np.ndarray = values.get(stream=self.stream)
            self.stream.synchronize()
        return result

    def write_rows(self, pixels: Any, rows: np.ndarray, values: np.ndarray) -> None:
        with self._current():
            for row, image in zip(rows, values, strict=True):
                pixels[int(row)].set(np.ascontiguousarray(image), stream=self.stream)

    def clear(self, pixels: Any) -> None:
        with self._current():
            if pixels.nbytes:
                pixels.data.memset_async(0, pixels.nbytes, self.stream)

    def decode(self, images: Sequence[bytes]) -> list[CardImage | None]:
        with self._current():
            reused = [*self.kept, *[None] * len(images)][: len(images)]
            decoded: list[Any] = [None] * len(images)
            for decoder in self.decoders:
                left = [number for number, image in enumerate(decoded) if image is None]
                for number, image in zip(left, self._decode_with(decoder, left, images, reused), strict=True):
                    decoded[number] = image
            self.kept[: len(images)] = [old if new is None else new for new, old in zip(decoded, reused, strict=True)]
            if any(image is None for image in decoded):
                self._explain_none(len(images))
            result = [None if image is None else _card_image(image) for image in decoded]
            if sum(image.capacity for image in self.kept if image is not None) > KEPT_BYTES:
                self.kept = []  # the images of `result` own their memory until they are resized
            return result

    def _decode_with(
        self, decoder: Any, numbers: Sequence[int], images: Sequence[bytes], reused: Sequence[Any]
    ) -> Sequence[Any]:
        """Decode the images with these numbers into the memory of the images that are reused. None: not decoded."""
        if not numbers:
            return []
        encoded, memory = [images[number] for number in numbers], [reused[number] for number in numbers]
        decoded: Sequence[Any] = decoder.decode(encoded, images=memory, params=self.params, cuda_stream=self.stream.ptr)
        if len(decoded) != len(numbers):
            raise RunError(f"nvImageCodec returned {len(decoded)} images of {len(numbers)}")
        return decoded

    def launch(self, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any]) -> None:
        with self._current():
            self.kernels[kernel](grid, (block,), tuple(arguments))

    def synchronize(self) -> None:
        with self._current():
            self.stream.synchronize()

    def release(self) -> None:
        with self._current():
            self.stream.synchronize()
            self.kept = []
            self.pool.free_all_blocks()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the device and the stream the thread's current ones, and give CUDA's errors their types."""
        with translated(self.name), self.device, self.stream:
            yield

    def _explain_none(self, images: int) -> None:
        """Raise if images were not decoded for another reason than their bytes; nvImageCodec does not tell."""
        self.stream.synchronize()  # raises if the card is lost
        if images > 1 and (full := self._fullness()):
            raise MemoryError(full)

    def _fullness(self) -> str:
        """Say that the card's memory is full, if it is."""
        with self._current():
            free, total = self.cupy.cuda.runtime.memGetInfo()
        return f"{self.name} is out of memory: {free >> 20} of {total >> 20} MiB are free" if free < LOW_MEMORY else ""

    def _open_decoders(self, index: int) -> tuple[str, ...]:
        """Open the decoders that answer on this card, each with the best options that it takes; returns their options."""
        problem = "it decodes no JPEG on the card. Its nvJPEG library may be missing"
        found: list[tuple[Any, str]] = []
        for kinds in BACKENDS:
            for options in OPTIONS:
                try:
                    self.decoders = [open_decoder(self.codec, index, kinds, options)]
                    answers = self.decode(probes()[:1])[0] is not None
                except (RuntimeError, TypeError, MemoryError) as error:
                    # Backends that are not supported, options or arguments that this version does not know, a full card.
                    problem = short_message(error)
                    continue
                if answers:
                    found.append((self.decoders[0], options))
                    break
        self.decoders = [decoder for decoder, _ in found]
        if found:
            return tuple(options for _, options in found)
        if full := self._fullness():
            raise UsageError(f"{full}; end the programs that use it, or choose another card")
        raise UsageError(f"{self.name}: nvImageCodec: {problem}: {WAY_OUT}")


def open_decoder(codec: Any, index: int, kinds: Sequence[str], options: str) -> Any:
    """Open nvImageCodec's decoder of a card with these kinds of decoders only: names of `BackendKind`."""
    backends = [codec.Backend(getattr(codec.BackendKind, kind)) for kind in kinds]
    return codec.Decoder(device_id=index, max_num_cpu_threads=DECODE_THREADS, backends=backends, options=options)


def has_jpeg_engines(index: int) -> bool:
    """Tell whether nvImageCodec finds JPEG engines on a card (A100, H100, H200 …). Other cards decode on their cores, half as fast."""
    try:
        _, codec = load_libraries()
        decoder = open_decoder(codec, index, BACKENDS[0], OPTIONS[-1])
        return decoder.decode([probes()[0]])[0] is not None
    except (UsageError, RuntimeError):
        return False


def load_libraries() -> tuple[Any, Any]:
    """Import CuPy and nvImageCodec.

    Raises:
        UsageError: one is missing, or does not load; says what to install.
    """
    # Read by nvImageCodec when it is loaded. It would log each image that it does not decode; we say it in the label table.
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
    # Against bombs, `can_decode_on_card` checks sizes and scans in the header, before any byte comes here. nvImageCodec's own limits do not
    # do it: NVIMGCODEC_MAX_JPEG_SCANS is of its CPU decoder, and in 0.9 any value of this one makes the limit one byte, for all images.
    os.environ.pop("NVIMGCODEC_MAX_IMAGE_SIZE", None)
    # CuPy compiles our three kernels in a second; a home folder that cannot be written must not matter.
    os.environ.setdefault("CUPY_CACHE_IN_MEMORY", "1")
    return _load("cupy", "CuPy"), _load("nvidia.nvimgcodec", "nvImageCodec")


def _load(module: str, name: str) -> Any:
    try:
        with _quiet_stderr():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise UsageError(f"decoding on the card needs {name}, which is not installed: {WAY_OUT}") from None
        raise UsageError(f"{name} does not load: {short_message(error)}: {WAY_OUT}") from None
    except Exception as error:  # a library of CUDA that is missing, a driver that is too old
        raise UsageError(f"{name} does not load: {short_message(error)}: {WAY_OUT}") from None


@contextmanager
def _opening(index: int) -> Iterator[None]:
    """Make what goes wrong while a card is opened an error of the user's machine."""
    try:
        yield
    except Exception as error:
        raise UsageError(
            f"gpu:{index} cannot be used: {short_message(error)}. The command 'mlcls doctor' says more"
        ) from error


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what native code prints: nvImageCodec misses libraries for TIFF and JPEG 2000 on each import, which nothing here reads."""
    saved = None
    with suppress(OSError):
        saved = os.dup(2)
    if saved is None:  # closed: there is nobody to disturb
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(null)
        os.close(saved)


def _card_image(image: Any) -> CardImage | None:
    """Take the address and the layout of nvImageCodec's image; None: it is not 8-bit RGB."""
    interface = image.__cuda_array_interface__
    shape = tuple(interface["shape"])
    if len(shape) != 3 or shape[2] != 3 or interface["typestr"] != "|u1":
        return None
    height, width, _ = shape
    strides = interface.get("strides")
    return CardImage(interface["data"][0], width, height, strides[0] if strides else 3 * width, image)

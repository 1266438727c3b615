"""A card for tests: it decodes in host memory, into numpy arrays, and can be made to fail like a real one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import simplejpeg

from mlcls_ray.engines.card.decoder import CardBatch
from mlcls_ray.errors import DeviceLostError, ImageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.jpeg_header import JpegHeader
from mlcls_ray.images.preprocess import Preprocess


class HostMemory:
    """The part of `CardBackend` that `CardBatch.put` uses."""

    def write_rows(self, pixels: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
        pixels[rows] = values

    def synchronize(self) -> None:
        pass


class HostCard:
    """Stands for `CardDecoder`: the CPU's pixels, at full size. It says nothing of damaged data, as a card's decoder may.

    Args:
        refuse: every so many-th image is one that the card does not decode; 0: none.
        memory: rows that it has room for.
        poison: bytes in an image at which it stops answering.
    """

    def __init__(
        self, preprocesses: Sequence[Preprocess], refuse: int = 0, memory: int = 1 << 30, poison: bytes = b""
    ) -> None:
        self.preprocesses = preprocesses
        self.refuse = refuse
        self.memory = memory
        self.poison = poison
        self.seen: list[JpegHeader] = []
        """Of the images that it was given."""

    def decode(self, images: Sequence[bytes], headers: Sequence[JpegHeader | None]) -> CardBatch:
        if self.poison and any(self.poison in image_bytes for image_bytes in images):
            raise DeviceLostError("the card stopped answering: CUDA error 719")
        if len(images) > self.memory:
            raise MemoryError("cudaErrorMemoryAllocation: out of memory")
        shapes = [(len(images), *preprocess.input_size[::-1], 3) for preprocess in self.preprocesses]
        pixels = tuple(np.zeros(shape, np.uint8) for shape in shapes)
        decoded = np.zeros(len(images), dtype=bool)
        for row, (image_bytes, header) in enumerate(zip(images, headers, strict=True)):
            if header is None:
                continue
            self.seen.append(header)
            if self.refuse and len(self.seen) % self.refuse == 0:
                continue
            image = decode_leniently(image_bytes)
            try:
                made = [preprocess.to_pixels(image) for preprocess in self.preprocesses]
            except ImageError:
                continue
            for column, values in zip(pixels, made, strict=True):
                column[row] = values
            decoded[row] = True
        return CardBatch(pixels, decoded, HostMemory())  # type: ignore[arg-type]


def decode_leniently(image_bytes: bytes) -> np.ndarray:
    """Decode a JPEG without a word about damage; upright where it has none."""
    try:
        return decode(image_bytes).image
    except Exception:
        return np.asarray(simplejpeg.decode_jpeg(image_bytes, "RGB", strict=False))

"""`CardDecoder`: a batch of encoded JPEGs → the inputs of models, on the card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mlcls_ray.engines.base import Pixels
from mlcls_ray.engines.card.backend import CardBackend
from mlcls_ray.engines.card.geometry import Geometry, geometry, unsupported_reason
from mlcls_ray.engines.card.probe import check_probe, decodes_probe
from mlcls_ray.engines.card.resize import ResizeJob, resize
from mlcls_ray.errors import DeviceLostError, UsageError, short_message
from mlcls_ray.images.jpeg_header import JpegHeader
from mlcls_ray.images.preprocess import Preprocess

MAX_CARD_PIXELS = 64_000_000
"""Pixels of an image, width * height, above which the CPU decodes it: the card's memory is for the models."""
GROUP = 64
"""Images that are decoded at once: an H200's JPEG engines decode 20,000 photographs a second in groups of 64, half of that in 256."""
SUSPICIOUS = 8
"""Images that are refused together, at least, before we ask whether the decoder itself has failed."""


class CardBatch(NamedTuple):
    """The pixels of a batch, one array for each preprocessing, ready to be read by any stream of the card."""

    pixels: tuple[Pixels, ...]
    """uint8 [N, H, W, 3] on the card, in the order of the decoder's preprocessings; zeros where an image was not decoded."""
    decoded: np.ndarray
    """bool [N]. False: the CPU must decode this image, say what is wrong with it, or `put` its pixels here."""
    backend: CardBackend

    def put(self, preprocess_number: int, rows: np.ndarray, host_pixels: np.ndarray) -> None:
        """Upload pixels that the CPU made: uint8 [K, H, W, 3], to the rows, int [K], of `pixels[preprocess_number]`.

        They are on the card when it returns. `decoded` does not change.

        Raises:
            MemoryError: the card's memory is full.
            DeviceLostError: the card stopped answering.
        """
        self.backend.write_rows(self.pixels[preprocess_number], rows, host_pixels)
        self.backend.synchronize()


class _Plan(NamedTuple):
    """One image that the card shall decode."""

    image_bytes: bytes
    width: int
    height: int
    orientation: int
    geometries: tuple[Geometry, ...]
    """One for each preprocessing."""
    row: int

    @property
    def card_bytes(self) -> int:
        return 3 * self.width * self.height + max(geometry.scratch_bytes for geometry in self.geometries)


class CardDecoder:
    """Decodes JPEGs on an NVIDIA card, straight into the inputs of models. Only one thread at a time uses an instance.

    The bytes of an image are decoded once, however many preprocessings there are. The resize is bit-equal to `Preprocess.to_pixels`
    of the same decoded image; the decoded image differs from the CPU's by one or two levels at most.
    """

    def __init__(self, index: int, preprocesses: Sequence[Preprocess], backend: CardBackend | None = None) -> None:
        """Open the card's decoder, compile its kernels, and decode a few small images to see that it works.

        Args:
            index: the card's number among those that this process sees.
            preprocesses: those with other pixels each (`RunSpec.preprocesses`).
            backend: the card; None: NVIDIA's, by CuPy and nvImageCodec.

        Raises:
            UsageError: a preprocessing that the card cannot do (`unsupported_reason`), a package or a library is missing, the card's
                memory is full, or its JPEG decoder does not answer; says what to install or to choose.
        """
        for reason in filter(None, map(unsupported_reason, preprocesses)):
            raise UsageError(f"the card cannot prepare this model's images: {reason}. Use placement 'split'")
        if backend is None:
            from mlcls_ray.engines.card.cuda import CudaCard  # its libraries are there on machines with a card only

            backend = CudaCard(index)
        self.preprocesses = tuple(preprocesses)
        self.backend: CardBackend = backend
        self.group_bytes = backend.image_bytes
        """Decoded images, and what their resize needs, on the card at once. Less after the card was full, and slowly more again."""
        self.geometries = lru_cache(maxsize=4096)(self._geometries)  # images of a corpus have few sizes
        try:
            check_probe(self)
        except MemoryError as error:
            raise UsageError(f"{error}; end the programs that use the card, or choose another one") from error

    def decode(self, images: Sequence[bytes], headers: Sequence[JpegHeader | None]) -> CardBatch:
        """Decode and resize a batch of any length. It is split by what fits the card's buffers; what does not fit is left to the CPU.

        Args:
            images: encoded JPEGs that `can_decode_on_card` accepts.
            headers: their headers, in the same order; None: leave this row out, it has another kind of image, or none.

        Raises:
            MemoryError: the card has no room for the pixels of the batch. Half the batch may fit.
            DeviceLostError: the card, or its decoder, stopped answering; this process must end.
        """
        shapes = [(len(images), *preprocess.pixels_shape) for preprocess in self.preprocesses]
        batch = CardBatch(
            tuple(self.backend.empty(shape, np.uint8) for shape in shapes), np.zeros(len(images), bool), self.backend
        )
        for pixels in batch.pixels:
            self.backend.clear(pixels)
        plans = [self._plan(*image, row) for row, image in enumerate(zip(images, headers, strict=True))]
        for group in _groups([plan for plan in plans if plan], self.group_bytes):
            self._decode_group(group, batch)
        self.backend.synchronize()
        return batch

    def _plan(self, image_bytes: bytes, header: JpegHeader | None, row: int) -> _Plan | None:
        """Plan an image; None: the CPU decodes it, or says why it is not decoded."""
        if header is None or header.width * header.height > MAX_CARD_PIXELS or not 1 <= header.orientation <= 8:
            return None
        geometries = self.geometries(*header.upright_size)
        if geometries is None:
            return None
        plan = _Plan(image_bytes, header.width, header.height, header.orientation, geometries, row)
        return plan if plan.card_bytes <= self.backend.image_bytes else None

    def _geometries(self, width: int, height: int) -> tuple[Geometry, ...] | None:
        """Plan the resize of an upright image for each preprocessing; None: the CPU refuses it for one of them."""
        geometries = [geometry(preprocess, width, height) for preprocess in self.preprocesses]
        known = tuple(plan for plan in geometries if plan is not None)
        return known if len(known) == len(geometries) else None

    def _decode_group(self, group: list[_Plan], batch: CardBatch) -> None:
        """Decode images that fit the card together. If they do not, try the halves; one image that does not fit is left to the CPU."""
        try:
            decoded = self._decode_and_resize(group, batch)
        except MemoryError:
            self.backend.release()
            self.group_bytes = min(self.group_bytes, sum(plan.card_bytes for plan in group) // 2)
            if len(group) == 1:
                for pixels in batch.pixels:
                    self.backend.clear(pixels[group[0].row : group[0].row + 1])
                return
            middle = len(group) // 2
            self._decode_group(group[:middle], batch)
            self._decode_group(group[middle:], batch)
        else:
            batch.decoded[decoded] = True
            self.group_bytes = min(self.backend.image_bytes, self.group_bytes + self.group_bytes // 16)

    def _decode_and_resize(self, group: list[_Plan], batch: CardBatch) -> list[int]:
        """Return the rows that were decoded."""
        images = self.backend.decode([plan.image_bytes for plan in group])
        found = [
            (plan, image)
            for plan, image in zip(group, images, strict=True)
            if image is not None and (image.width, image.height) == (plan.width, plan.height)
        ]
        if not found and len(group) >= SUSPICIOUS and not decodes_probe(self.backend):
            raise DeviceLostError(f"the JPEG decoder of {self.backend.name} stopped answering")
        for number, (preprocess, pixels) in enumerate(zip(self.preprocesses, batch.pixels, strict=True)):
            jobs = [ResizeJob(image, plan.orientation, plan.geometries[number], plan.row) for plan, image in found]
            resize(self.backend, jobs, preprocess.interpolation, pixels)
        self.backend.synchronize()  # the next group is decoded into the same memory
        return [plan.row for plan, _ in found]


def decoder_problem(index: int) -> str | None:
    """Try the JPEG decoder and the kernels of a card on this machine. Takes seconds, and the card's memory until the process ends.

    Returns:
        None: they work. Otherwise one line that says what is wrong and what to install.
    """
    try:
        CardDecoder(index, (Preprocess(size=(224, 224), backend="pil", interpolation="BILINEAR"),))
    except Exception as error:  # whatever it is, it keeps the card from being used
        return short_message(error)
    return None


def _groups(plans: Sequence[_Plan], max_bytes: int) -> Iterator[list[_Plan]]:
    """Split images, in their order, into groups of at most `GROUP`, and of at most `max_bytes` unless it is one image."""
    group: list[_Plan] = []
    total = 0
    for plan in plans:
        if group and (len(group) == GROUP or total + plan.card_bytes > max_bytes):
            yield group
            group, total = [], 0
        group.append(plan)
        total += plan.card_bytes
    if group:
        yield group

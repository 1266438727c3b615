"""A card's decoder on a faked card: the real `CardDecoder`, in host memory, which says nothing of damaged data and fails on demand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import simplejpeg

from mlcls_ray.engines.card.decoder import CardDecoder
from mlcls_ray.errors import DeviceLostError
from mlcls_ray.images.preprocess import Preprocess
from tests.engines.card.host_card import HostCard


class FakedCard(HostCard):
    """A card that decodes as nvJPEG may: damaged data give some image.

    Args:
        refuse: each so many-th image is one that the card does not decode; 0: none.
        rows: pixels of so many images fit its memory.
        poison: bytes in an image at which it stops answering.
    """

    def __init__(self, refuse: int = 0, rows: int = 1 << 30, poison: bytes = b"") -> None:
        super().__init__(self.decode_leniently)
        self.refuse = refuse
        self.rows = rows
        self.poison = poison
        self.seen = 0

    def decode_leniently(self, image_bytes: bytes) -> np.ndarray | None:
        if self.poison and self.poison in image_bytes:
            raise DeviceLostError("gpu:0 stopped answering: CUDA error 719")
        self.seen += 1
        if self.refuse and self.seen % self.refuse == 0:
            return None
        try:
            image: np.ndarray = simplejpeg.decode_jpeg(image_bytes, "RGB", strict=False)
        except ValueError:
            return None
        return image

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        if len(shape) == 4 and shape[0] > self.rows:
            raise MemoryError("gpu:0 is out of memory")
        return super().empty(shape, dtype)


def decoder_on(card: FakedCard, preprocesses: Sequence[Preprocess]) -> CardDecoder:
    """Open the decoder of a card, which tries it with two images, and count those that follow."""
    refuse, card.refuse = card.refuse, 0
    decoder = CardDecoder(0, preprocesses, card)
    card.refuse, card.seen = refuse, 0
    return decoder

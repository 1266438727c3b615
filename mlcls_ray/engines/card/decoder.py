"""`CardDecoder`: a batch of encoded JPEGs → the inputs of models, on the card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlcls_ray.engines.card.backend import CardBackend, Pixels
from mlcls_ray.images.preprocess import Preprocess

if TYPE_CHECKING:
    from mlcls_ray.images.jpeg_header import JpegHeader

MAX_CARD_PIXELS = 64_000_000
"""Pixels of an image, width * height, above which the CPU decodes it: the card's memory is for the models."""


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
            DeviceLostError: the card stopped answering.
        """
        self.backend.write_rows(self.pixels[preprocess_number], rows, host_pixels)
        self.backend.synchronize()


class CardDecoder:
    """Decodes JPEGs on an NVIDIA card, straight into the inputs of models. Only one thread at a time uses an instance.

    The bytes of an image are decoded once, however many preprocessings there are. The resize is bit-equal to `Preprocess.to_pixels`
    of the same decoded image; the decoded image differs from the CPU's by one or two levels at most.
    """

    def __init__(self, index: int, preprocesses: Sequence[Preprocess], backend: CardBackend | None = None) -> None:
        """Open the card's decoder and compile its kernels.

        Args:
            index: the card's number among those that this process sees.
            preprocesses: those with other pixels each (`RunSpec.preprocesses`).
            backend: the card; None: NVIDIA's, by CuPy and nvImageCodec.

        Raises:
            UsageError: a preprocessing that the card cannot do (`unsupported_reason`), a package or a library is missing, or the
                card's JPEG decoder does not answer; says what to install or to choose.
        """
        raise NotImplementedError

    def decode(self, images: Sequence[bytes], headers: Sequence[JpegHeader]) -> CardBatch:
        """Decode and resize a batch of any length. It is split by what fits the card's buffers.

        Args:
            images: encoded JPEGs that `read_jpeg_header` found whole.
            headers: their headers, in the same order; `width` and `height` as stored, before the orientation is applied.

        Raises:
            Exception: the card's memory is full; `stages.score.is_out_of_memory` knows it. Half the batch may fit.
            DeviceLostError: the card stopped answering; this process must end.
        """
        raise NotImplementedError


def unsupported_reason(preprocess: Preprocess) -> str | None:
    """Tell why the card cannot do a preprocessing bit by bit as the CPU does; None: it can. Needs no card."""
    raise NotImplementedError


def decoder_problem(index: int) -> str | None:
    """Try the card's JPEG decoder and kernels on this machine; None: they work. Otherwise one line with the way out."""
    raise NotImplementedError

"""`CardBackend`: the few operations that need a card. `cuda` has the real one; tests have one that works in host memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlcls_ray.engines.base import Pixels


class CardImage(NamedTuple):
    """A decoded image on the card, RGB uint8, as it is stored in the file: not turned upright."""

    address: int
    """The address of the first pixel."""
    width: int
    height: int
    row_bytes: int
    """Bytes from one row to the next."""
    owner: object
    """Keeps the memory alive."""


class CardBackend(Protocol):
    """A card: its memory, its JPEG decoder, and the kernels of `resize.cu`. Work is queued in one order, the order of the calls.

    Every method may raise `MemoryError`, where the card's memory is full, and `DeviceLostError`, after which the process can do nothing
    more with the card.
    """

    name: str
    """The device and its product name, for messages."""
    image_bytes: int
    """Memory for decoded images, and for what their resize needs, at once."""

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """Allocate an array on the card."""

    def upload(self, values: np.ndarray) -> Any:
        """Copy an array to the card."""

    def download(self, values: Any) -> np.ndarray:
        """Copy an array from the card, when everything that was started before is finished."""

    def write_rows(self, pixels: Pixels, rows: np.ndarray, values: np.ndarray) -> None:
        """Copy `values`, uint8 [K, H, W, 3] in host memory, to the rows, int [K], of `pixels`."""

    def clear(self, pixels: Pixels) -> None:
        """Fill with zeros."""

    def decode(self, images: Sequence[bytes]) -> list[CardImage | None]:
        """Decode JPEGs, 64 at most; None: the card cannot decode this one. The next call may use the images' memory again."""

    def launch(self, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any]) -> None:
        """Start a kernel of `resize.cu`. Arguments are arrays on the card, and numpy scalars."""

    def synchronize(self) -> None:
        """Wait until everything that was started is finished."""

    def release(self) -> None:
        """Give memory that is kept for later calls back to the card."""

"""A decoded image, and the limits that hold for each format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np

from mlcls_ray.errors import ImageError, Status

MAX_PAGES = 10_000
"""Pages read of one document."""


class Decoded(NamedTuple):
    """A decoded image: uint8 [H, W, 3], turned upright, and the lower-case name of its file format.

    `width` and `height` are those of the file, upright. They are larger than the image if it was decoded at a fraction of its size.
    """

    image: np.ndarray
    format: str
    width: int
    height: int


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse a header that promises more than `max_pixels`.

    Raises:
        ImageError: `too_large`; `corrupt`: a side of 0.
    """
    if width < 1 or height < 1:
        raise corrupt(f"{width}x{height} pixels")
    if width * height > max_pixels:
        raise ImageError(Status.TOO_LARGE, f"{width}x{height} pixels; the limit is {max_pixels} (max_pixels)")


def corrupt(message: str) -> ImageError:
    """The error of an image with pixels that are missing or unsure."""
    return ImageError(Status.CORRUPT, message)


def unsupported(name: str) -> ImageError:
    """The error of an image that is whole, and that nothing here reads."""
    return ImageError(Status.UNSUPPORTED, f"{name} is not read")


class Pages(NamedTuple):
    """The pages of a format. `numbers` counts from 1, up to one more than `MAX_PAGES`; `take` makes one page a document of its own.

    Both raise ImageError: `corrupt`, `unsupported`; `take` also `missing` and `too_large`.
    """

    numbers: Callable[[bytes | mmap], list[int]]
    take: Callable[[bytes, int], bytes]


class Reader(NamedTuple):
    """A format with a module of its own. To add one, write the module, and name its `READER` in `formats.READERS`.

    `is_it` tells by the first bytes whether a file is of the format. `read` decodes its pictures one at a time, from encoded bytes and the
    largest number of pixels. `package` is what it needs beside the packages that are always there, and `extra` the extra that has it.
    """

    name: str
    is_it: Callable[[bytes], bool]
    read: Callable[[bytes, int], Iterator[Decoded]]
    suffixes: tuple[str, ...] = ()
    extra: str = ""
    package: str = ""
    pages: Pages | None = None

    @property
    def is_installed(self) -> bool:
        """True if this machine can read the format."""
        return not self.package or find_spec(self.package) is not None


def single(decode: Callable[[bytes, int], Decoded]) -> Callable[[bytes, int], Iterator[Decoded]]:
    """Make a reader of one picture what `Reader.read` is."""

    def read(image_bytes: bytes, max_pixels: int) -> Iterator[Decoded]:
        yield decode(image_bytes, max_pixels)

    return read


def check_page(number: int, pages: int) -> None:
    """Refuse a page that a document does not have, or that is beyond `MAX_PAGES`.

    Raises:
        ImageError: `missing` or `too_large`.
    """
    if number > MAX_PAGES:
        raise ImageError(Status.TOO_LARGE, f"documents are read up to page {MAX_PAGES}")
    if number > pages:
        raise ImageError(Status.MISSING, f"the document has {pages} pages")


def import_extra(package: str, extra: str, name: str) -> Any:
    """Import a package that one of our extras brings, when the first such file comes.

    Raises:
        ImageError: `unsupported`, with the extra to install.
    """
    try:
        return import_module(package)
    except ImportError:
        raise ImageError(Status.UNSUPPORTED, f"{name} needs the extra '{extra}': {install_hint(extra)}") from None


def install_hint(extra: str) -> str:
    return f"pip install 'mlcls-ray[{extra}]'"

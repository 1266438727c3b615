"""Render the pages of a PDF as PaddleX does: at 144 dots per inch."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from typing import Any

import numpy as np

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decoded import MAX_PAGES, Decoded, Pages, Reader, check_page, check_pixels, corrupt, import_extra

EXTRA, PACKAGE = "pdf", "pypdfium2"
MAGIC = b"%PDF"
SCALE = 2.0
"""Pixels per point; a point is 1/72 inch."""
_LOCK = threading.Lock()
"""PDFium is not made for several threads."""


def render_pages(document: bytes, max_pixels: int) -> Iterator[Decoded]:
    """Render each page to RGB, one at a time.

    Raises:
        ImageError: `unsupported`: pypdfium2 is not installed, or a password is needed; `corrupt`; `too_large`.
    """
    number = 0
    while True:
        with _opened(document) as opened:
            if number and number >= min(len(opened), MAX_PAGES):
                return
            if not len(opened):
                raise corrupt("a PDF without a page")
            image = _render(opened[number], max_pixels)
        yield Decoded(image, "pdf", image.shape[1], image.shape[0])
        number += 1


def _render(page: Any, max_pixels: int) -> np.ndarray:
    width, height = (round(side * SCALE) for side in page.get_size())
    check_pixels(width, height, max_pixels)
    return np.asarray(page.render(scale=SCALE).to_pil().convert("RGB"))


def number_pages(document: bytes | mmap) -> list[int]:
    """Number the pages.

    Raises:
        ImageError: `unsupported` or `corrupt`.
    """
    with _opened(bytes(document)) as opened:
        return list(range(1, min(len(opened), MAX_PAGES + 1) + 1))


def take_page(document: bytes, number: int) -> bytes:
    """Write a page as a PDF of its own.

    Raises:
        ImageError: `missing`, `too_large`, `unsupported` or `corrupt`.
    """
    with _opened(document) as opened:
        check_page(number, len(opened))
        stream = io.BytesIO()
        alone = type(opened).new()
        try:
            alone.import_pages(opened, [number - 1])
            alone.save(stream)
        finally:
            alone.close()
        return stream.getvalue()


@contextmanager
def _opened(document: bytes) -> Iterator[Any]:
    """Open a document, for one thread at a time.

    Raises:
        ImageError: `unsupported` or `corrupt`.
    """
    pypdfium2 = import_extra(PACKAGE, EXTRA, READER.name)
    try:
        with _LOCK, pypdfium2.PdfDocument(document) as opened:
            yield opened
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise ImageError(Status.UNSUPPORTED, "a PDF with a password is not read") from None
        raise corrupt(f"PdfiumError: {error}") from None


READER = Reader(
    "PDF",
    lambda image_bytes: image_bytes.startswith(MAGIC),
    render_pages,
    (".pdf",),
    EXTRA,
    PACKAGE,
    Pages(number_pages, take_page),
)

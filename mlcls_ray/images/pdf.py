"""Render the pages of a PDF as PaddleX does: at 144 dots per inch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images import MAX_PIXELS
from mlcls_ray.images.tiff import MAX_PAGES

MAGIC = b"%PDF"
SCALE = 2.0
"""Pixels per point; a point is 1/72 inch."""


def render_pages(document_bytes: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[np.ndarray]:
    """Render each page to uint8 [H, W, 3], one at a time. PDFium must be used by one thread only.

    Raises:
        ImageError: `unsupported`: pypdfium2 is not installed; `corrupt`; `too_large`.
    """
    try:
        import pypdfium2
    except ImportError:
        raise ImageError(Status.UNSUPPORTED, "PDF needs the extra 'pdf': pip install 'mlcls-ray[pdf]'") from None
    try:
        with pypdfium2.PdfDocument(document_bytes) as document:
            for number in range(min(len(document), MAX_PAGES)):
                page = document[number]
                width, height = (round(side * SCALE) for side in page.get_size())
                if width * height > max_pixels:
                    raise ImageError(
                        Status.TOO_LARGE, f"page {number} has {width}x{height} pixels; the limit is {max_pixels}"
                    )
                yield np.asarray(page.render(scale=SCALE).to_pil().convert("RGB"))
    except pypdfium2.PdfiumError as error:
        raise ImageError(Status.CORRUPT, f"PdfiumError: {error}") from None

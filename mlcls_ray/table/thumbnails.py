"""Thumbnails for HTML pages of one file. Their number and their bytes are bounded, whatever the size of the corpus."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from mlcls_ray.config import FetchOptions, S3Options
from mlcls_ray.errors import ImageError, one_image
from mlcls_ray.images.decode import decode
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.uris import redact_url

SIDE = 176
QUALITY = 72
MAX_BYTES = 12_000_000
"""Encoded size of all thumbnails of a page; one takes about eight kilobytes."""
THREADS = 8


def make_thumbnails(s3: S3Options, uris: Iterable[str], count: int, max_bytes: int = MAX_BYTES) -> dict[str, str]:
    """Make `data:` uris of JPEGs of at most 176×176, by uri, for the first `count` uris until `max_bytes` are reached.

    Images that can no longer be read are left out.
    """
    fetcher = Fetcher(FetchOptions(s3=s3, fetch_attempts=2))
    chosen = list(dict.fromkeys(uris))[:count]
    thumbnails: dict[str, str] = {}
    total = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnail") as threads:
        pairs = prefetch_map(lambda uri: (uri, _thumbnail(fetcher, uri)), chosen, threads, 2 * THREADS)
        for uri, thumbnail in pairs:
            if thumbnail is not None and total + len(thumbnail) <= max_bytes:
                thumbnails[uri] = thumbnail
                total += len(thumbnail)
    return thumbnails


def _thumbnail(fetcher: Fetcher, uri: str) -> str | None:
    try:
        with one_image():
            jpeg = small_jpeg(fetcher.fetch(uri).image_bytes, SIDE)
    except ImageError:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def small_jpeg(image_bytes: bytes, side: int) -> bytes:
    """Decode an image, and encode it as a JPEG of at most `side` by `side` pixels.

    Raises:
        ImageError: as `decode`.
    """
    image = Image.fromarray(decode(image_bytes, min_size=(2 * side, 2 * side)).image)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def base_name(uri: str) -> str:
    """Return the file name of an image, for people."""
    return os.path.basename(redact_url(uri).rstrip("/")) or redact_url(uri)


def inline_sheet(s3: S3Options, rows: Sequence[tuple[str, list[str] | None, list[float] | None]]) -> str:
    """Draw images with their labels as HTML for a notebook. `rows`: uri, labels, scores."""
    thumbnails = make_thumbnails(s3, [uri for uri, _, _ in rows], len(rows))
    cells = []
    for uri, labels, scores in rows:
        caption = (
            ", ".join(f"{label} {score:.2f}" for label, score in zip(labels or [], scores or [], strict=True))
            or "no label"
        )
        name = html.escape(base_name(uri))
        picture = f'<img src="{thumbnails[uri]}" alt="{name}">' if uri in thumbnails else "not readable"
        cells.append(
            f'<figure style="display:inline-block;margin:6px;width:{SIDE}px;vertical-align:top">{picture}'
            f'<figcaption style="font-size:12px">{name}<br><b>{html.escape(caption)}</b></figcaption></figure>'
        )
    return "<div>" + "".join(cells) + "</div>"

"""Small pictures for pages that open from disk: bounded in number and in bytes, whatever the corpus."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from mlcls_ray.config import FetchOptions, S3Options
from mlcls_ray.errors import ImageError
from mlcls_ray.images.decode import decode
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.uris import redact_url

SIDE = 176
QUALITY = 72
MAX_BYTES = 12_000_000
"""Of all thumbnails of a page, encoded; some eight kilobytes each."""
THREADS = 8


def make_thumbnails(s3: S3Options, uris: Iterable[str], most: int, most_bytes: int = MAX_BYTES) -> dict[str, str]:
    """uri → `data:` uri of a JPEG of at most 176×176, for the first `most` uris until `most_bytes` are reached.

    What cannot be read any more is left out.
    """
    fetcher = Fetcher(FetchOptions(s3=s3, fetch_attempts=2))
    chosen = list(dict.fromkeys(uris))[:most]
    made: dict[str, str] = {}
    total = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnail") as threads:
        found = prefetch_map(lambda uri: (uri, _thumbnail(fetcher, uri)), chosen, threads, 2 * THREADS)
        for uri, thumbnail in found:
            if thumbnail is not None and total + len(thumbnail) <= most_bytes:
                made[uri] = thumbnail
                total += len(thumbnail)
    return made


def _thumbnail(fetcher: Fetcher, uri: str) -> str | None:
    try:
        image = Image.fromarray(decode(fetcher.fetch(uri).image_bytes, enough=(2 * SIDE, 2 * SIDE)).image)
    except ImageError:
        return None
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def base_name(uri: str) -> str:
    """What a person calls the image."""
    return os.path.basename(redact_url(uri).rstrip("/")) or redact_url(uri)


def inline_sheet(s3: S3Options, rows: Sequence[tuple[str, list[str] | None, list[float] | None]]) -> str:
    """Images with their labels as HTML for a notebook. `rows`: uri, labels, scores."""
    thumbnails = make_thumbnails(s3, [uri for uri, _, _ in rows], len(rows))
    cells = []
    for uri, labels, scores in rows:
        told = (
            ", ".join(f"{label} {score:.2f}" for label, score in zip(labels or [], scores or [], strict=True))
            or "no label"
        )
        name = html.escape(base_name(uri))
        picture = f'<img src="{thumbnails[uri]}" alt="{name}">' if uri in thumbnails else "not readable"
        cells.append(
            f'<figure style="display:inline-block;margin:6px;width:{SIDE}px;vertical-align:top">{picture}'
            f'<figcaption style="font-size:12px">{name}<br><b>{html.escape(told)}</b></figcaption></figure>'
        )
    return "<div>" + "".join(cells) + "</div>"

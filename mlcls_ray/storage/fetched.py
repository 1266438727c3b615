"""The result of reading a uri: its bytes, or an `ImageError` with a status."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from mlcls_ray.errors import ImageError, Status


class Fetched(NamedTuple):
    """The encoded bytes of an image; mtime in UTC and etag, where the source tells them."""

    image_bytes: bytes
    mtime: datetime | None = None
    etag: str | None = None


def too_large(size: int | None, max_bytes: int) -> ImageError:
    """Make the error for an image of more than `max_bytes`; `size` is None where reading stopped at the limit."""
    actual = f"{size} bytes" if size is not None else "more bytes"
    return ImageError(Status.TOO_LARGE, f"{actual}; the limit is {max_bytes} (max_bytes)")


def http_status(code: int) -> Status:
    """Translate the status code of an HTTP or S3 error."""
    if code in (404, 410):
        return Status.MISSING
    if code in (401, 403):
        return Status.DENIED
    return Status.HTTP_5XX if code >= 500 or code == 429 else Status.HTTP_4XX

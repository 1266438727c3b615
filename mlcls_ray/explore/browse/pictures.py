"""Images of the table as JPEGs of bounded size, made in bounded time. What cannot be shown says why.

An image is always decoded and encoded again, so that nothing but pixels leaves the machine, whatever the uris of the table name.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from mlcls_ray.config import FetchOptions
from mlcls_ray.errors import ImageError, Status, one_image
from mlcls_ray.explore.browse.index import Index
from mlcls_ray.stages.read import hash_content
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.table.thumbnails import small_jpeg

THUMBNAIL, LARGE = 320, 1600
"""Longest sides in pixels."""
THREADS = 8
WAIT_S = 20.0
"""Seconds that a page waits for one picture, and that one download may take."""
CACHE_BYTES = 96_000_000
KEPT_PROBLEM_S = 60.0
"""Seconds after which a picture that could not be shown is tried again."""
MAX_KEPT = 20_000
DECODERS = 2
"""Images that are decoded at once: a large one takes half a gigabyte."""


class Picture(NamedTuple):
    """A JPEG, or the problem because of which there is none. `is_changed`: the file is another one than was labeled."""

    jpeg: bytes | None
    problem: str | None = None
    is_changed: bool = False


class Pictures:
    """Makes pictures of the images of an index, and keeps the last ones."""

    def __init__(
        self,
        index: Index,
        allow_private_urls: bool = False,
        wait_s: float = WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.index = index
        self.wait_s = wait_s
        options = FetchOptions(s3=index.table.store.s3, fetch_attempts=1, timeout_s=wait_s)
        self.fetcher = Fetcher(options, is_public_only=not allow_private_urls)
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="picture")
        self._kept: OrderedDict[tuple[int, int], tuple[Picture, float]] = OrderedDict()
        self._kept_bytes = 0
        self._decoding = threading.Semaphore(DECODERS)
        self._clock = clock
        self._lock = threading.Lock()

    async def get(self, number: int, side: int) -> Picture | None:
        """Return the picture of an image with this longest side, or its problem; None if there is no such image."""
        kept, made_at = self._kept.get((number, side), (None, 0.0))
        if kept is not None and (kept.jpeg is not None or self._clock() - made_at < KEPT_PROBLEM_S):
            return kept
        making = asyncio.get_running_loop().run_in_executor(self.threads, self._make, number, side)
        try:
            return await asyncio.wait_for(asyncio.shield(making), self.wait_s)
        except asyncio.TimeoutError:  # the thread goes on until its own limit; who asks again may find the picture
            return Picture(None, f"{Status.TIMEOUT}: it was not there after {self.wait_s:g} s")

    def close(self) -> None:
        """Make no more pictures."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _make(self, number: int, side: int) -> Picture | None:
        rows = self.index.query(
            "SELECT uri, content_hash, status, error_message FROM browse.images WHERE id = $id", {"id": number}
        )
        if not rows:
            return None
        picture = self._picture(rows[0]["uri"], rows[0]["content_hash"], side)
        self._keep((number, side), picture)
        return picture

    def _picture(self, uri: str, content_hash: str | None, side: int) -> Picture:
        try:
            with one_image():
                image_bytes = self.fetcher.fetch(uri).image_bytes
                is_changed = content_hash is not None and hash_content(image_bytes) != content_hash
                with self._decoding:
                    return Picture(small_jpeg(image_bytes, side), None, is_changed)
        except ImageError as error:
            return Picture(None, f"{error.status}: {error}")

    def _keep(self, key: tuple[int, int], picture: Picture) -> None:
        """Keep a picture, and let the oldest go."""
        with self._lock:
            before, _ = self._kept.pop(key, (None, 0.0))
            self._kept[key] = picture, self._clock()
            self._kept_bytes += len(picture.jpeg or b"") - len((before and before.jpeg) or b"")
            while self._kept_bytes > CACHE_BYTES or len(self._kept) > MAX_KEPT:
                _, (oldest, _) = self._kept.popitem(last=False)
                self._kept_bytes -= len(oldest.jpeg or b"")

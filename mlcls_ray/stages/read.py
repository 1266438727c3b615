"""Stage: uri → pixels. Fetches, decodes and resizes; each failure becomes the row's status."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.config import S3Options
from mlcls_ray.errors import MESSAGE_LIMIT, ImageError, Status
from mlcls_ray.images.decode import Decoded, decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.storage.fetch import Fetcher

Batch = dict[str, np.ndarray]
WHOLE = (1 << 30, 1 << 30)
"""More than any image has: a preprocessing for which no fraction of one is enough."""


class ReadOptions(NamedTuple):
    """What the stage needs of a plan; small, it travels to each worker.

    Of `rows` rows, `annotate` keep their bytes for an annotated image, evenly spread.
    """

    preprocess: Preprocess
    s3: S3Options
    max_bytes: int
    max_pixels: int
    timeout_s: float
    attempts: int
    threads: int
    rows: int
    annotate: int
    decode: Literal["auto", "exact"] = "auto"
    others: tuple[Preprocess, ...] = ()
    """Of further models that score the same images, each other than `preprocess`."""


class ImageRead(NamedTuple):
    """One image, or why there is none. The fields are columns of the label table."""

    status: Status
    error_message: str
    pixels: tuple[np.ndarray, ...] = ()
    """For each preprocessing; none where the image could not be read."""
    image_bytes: bytes = b""
    width: int = -1
    height: int = -1
    format: str = ""
    size_bytes: int = -1
    mtime: np.datetime64 | None = None
    etag: str = ""
    content_hash: str = ""
    fetch_s: float = 0.0
    """Wall time, mostly waiting."""
    decode_s: float = 0.0
    """CPU time of decode and resize."""


class ReadImages:
    """Manifest rows (Arrow) → batch with `pixels`; keeps its threads and connections."""

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.fetcher = make_fetcher(options)
        self.preprocesses = (options.preprocess, *options.others)
        enough = [one.enough if options.decode == "auto" else None for one in self.preprocesses]
        self.by_enough = sorted(enumerate(enough), key=lambda one: one[1] or WHOLE)
        """Which preprocessing needs how large an image, smallest first: what comes whole for it need not be decoded again."""
        self.seconds = {"fetch": 0.0, "decode": 0.0}
        """Spent so far; `fetch` divided by the threads that wait side by side."""
        self.threads = ThreadPoolExecutor(options.threads, thread_name_prefix="read")

    def __call__(self, manifest: pa.Table) -> Batch:
        row_ids = manifest.column(schema.ROW_ID).to_numpy()
        uris = manifest.column(schema.URI).to_pylist()
        images = list(self.threads.map(self.read, uris, self._is_annotated(row_ids)))
        self.seconds["fetch"] += sum(image.fetch_s for image in images) / self.options.threads
        self.seconds["decode"] += sum(image.decode_s for image in images)
        known = _known(manifest)
        return {
            schema.ROW_ID: row_ids,
            schema.URI: _objects(uris),
            schema.STATUS: _objects([str(image.status) for image in images]),
            schema.ERROR_MESSAGE: _objects([image.error_message for image in images]),
            schema.ATTEMPTS: manifest.column(schema.ATTEMPTS).to_numpy() + 1,
            schema.WIDTH: np.array([image.width for image in images], dtype=np.int32),
            schema.HEIGHT: np.array([image.height for image in images], dtype=np.int32),
            schema.FORMAT: _objects([image.format for image in images]),
            schema.SIZE_BYTES: _first(known[schema.SIZE_BYTES], [image.size_bytes for image in images], -1),
            schema.MTIME: _times(known[schema.MTIME], [image.mtime for image in images]),
            schema.ETAG: _objects([image.etag or told for image, told in zip(images, known[schema.ETAG], strict=True)]),
            schema.CONTENT_HASH: _objects([image.content_hash for image in images]),
            schema.IMAGE_BYTES: _objects([image.image_bytes for image in images]),
            **{
                schema.of_model(schema.PIXELS, number): _pixels(images, number, one.input_size)
                for number, one in enumerate(self.preprocesses)
            },
        }

    def read(self, uri: str, keep_bytes: bool) -> ImageRead:
        """One image, start to end; never raises."""
        described: dict[str, Any] = {}
        began = time.perf_counter()
        try:
            fetched = self.fetcher.fetch(uri)
            described["fetch_s"] = time.perf_counter() - began
            described["size_bytes"] = len(fetched.image_bytes)
            described["content_hash"] = hash_content(fetched.image_bytes)
            described["etag"] = fetched.etag or ""
            if fetched.mtime is not None:
                described["mtime"] = np.datetime64(fetched.mtime.replace(tzinfo=None), "us")
            cpu = time.thread_time()
            pixels = self._pixels(fetched.image_bytes, described)
            described["decode_s"] = time.thread_time() - cpu
        except ImageError as error:
            return ImageRead(error.status, str(error), **described)
        except Exception as error:  # the promise: one image never ends a job
            return ImageRead(Status.CORRUPT, f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT], **described)
        kept = fetched.image_bytes if keep_bytes else b""
        return ImageRead(Status.OK, "", pixels, kept, **described)

    def _pixels(self, image_bytes: bytes, described: dict[str, Any]) -> tuple[np.ndarray, ...]:
        """For each preprocessing; decoded once, unless one can do with a fraction of the size and another cannot."""
        found: dict[int, np.ndarray] = {}
        decoded: Decoded | None = None
        before = None
        for number, enough in self.by_enough:
            if decoded is None or not _serves(decoded, before, enough):
                decoded, before = decode(image_bytes, self.options.max_pixels, enough), enough
                described["height"], described["width"] = decoded.height, decoded.width
                described["format"] = decoded.format
            found[number] = self.preprocesses[number].to_pixels(decoded.image)
        return tuple(found[number] for number in range(len(self.preprocesses)))

    def _is_annotated(self, row_ids: np.ndarray) -> np.ndarray:
        """bool [n]: `annotate` of `rows` row ids, evenly spread, the same ones on each attempt."""
        count, rows = self.options.annotate, max(self.options.rows, 1)
        if count >= rows:
            return np.ones(len(row_ids), dtype=bool)
        chosen: np.ndarray = (row_ids + 1) * count // rows > row_ids * count // rows
        return chosen


def make_fetcher(options: ReadOptions) -> Fetcher:
    return Fetcher(options.s3, options.max_bytes, options.timeout_s, options.attempts)


def _serves(decoded: Decoded, asked: tuple[int, int] | None, enough: tuple[int, int] | None) -> bool:
    """Whether decoding anew for `enough` would give the image that was decoded for `asked`."""
    is_whole = decoded.image.shape[:2] == (decoded.height, decoded.width)
    (width, height), (other_width, other_height) = asked or WHOLE, enough or WHOLE
    return asked == enough or (is_whole and other_width >= width and other_height >= height)


def _pixels(images: list[ImageRead], number: int, input_size: tuple[int, int]) -> np.ndarray:
    """uint8 [N, H, W, 3] of one preprocessing, zeros where an image could not be read."""
    width, height = input_size
    pixels = np.zeros((len(images), height, width, 3), dtype=np.uint8)
    for position, image in enumerate(images):
        if image.pixels:
            pixels[position] = image.pixels[number]
    return pixels


def hash_content(image_bytes: bytes) -> str:
    """What identical bytes have in common: BLAKE2b of 128 bits, as hexadecimal digits."""
    return hashlib.blake2b(image_bytes, digest_size=16).hexdigest()


def _known(manifest: pa.Table) -> dict[str, Any]:
    """What the listing told, with nulls replaced."""
    mtimes = manifest.column(schema.MTIME).cast(pa.timestamp("us")).to_numpy()
    return {
        schema.SIZE_BYTES: manifest.column(schema.SIZE_BYTES).fill_null(-1).to_numpy(),
        schema.MTIME: mtimes.astype("datetime64[us]"),
        schema.ETAG: manifest.column(schema.ETAG).fill_null("").to_pylist(),
    }


def _objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _first(told: np.ndarray, found: list[int], unknown: int) -> np.ndarray:
    """What was found when reading, else what the listing told."""
    values = np.array(found, dtype=np.int64)
    return np.where(values == unknown, told, values)


def _times(told: np.ndarray, found: list[np.datetime64 | None]) -> np.ndarray:
    values = np.array([np.datetime64("NaT", "us") if time is None else time for time in found], dtype="datetime64[us]")
    return np.where(np.isnat(values), told, values)

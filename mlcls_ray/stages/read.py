"""Read: uri → encoded image and content hash. A failure becomes the row's status."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.errors import MESSAGE_LIMIT, ImageError, Status
from mlcls_ray.stages.spec import Batch, RunSpec
from mlcls_ray.storage.fetch import Fetcher

UNKNOWN_TIME = np.datetime64("NaT", "us")


class ReadImage(NamedTuple):
    """One image that was read, or why it was not."""

    status: Status = Status.OK
    error_message: str = ""
    image_bytes: bytes = b""
    mtime: np.datetime64 | None = None
    etag: str = ""
    content_hash: str = ""
    seconds: float = 0.0
    """Wall time, mostly waiting."""


class Read:
    """Manifest rows (Arrow) → a batch with `image_bytes`. Keeps its threads and connections."""

    uses_device: ClassVar[bool] = False

    def __init__(self, spec: RunSpec) -> None:
        self.fetcher = Fetcher(spec.job)
        self.fetch_threads = spec.job.fetch_threads
        self.threads = ThreadPoolExecutor(self.fetch_threads, thread_name_prefix="read")
        self.seconds = {"fetch": 0.0}

    def __call__(self, manifest: pa.Table) -> Batch:
        uris = manifest.column(schema.URI).to_pylist()
        images = self.read_all(uris)
        # The threads wait side by side.
        self.seconds["fetch"] += sum(image.seconds for image in images) / self.fetch_threads
        listed = _listed(manifest)
        return {
            schema.ROW_ID: manifest.column(schema.ROW_ID).to_numpy(),
            schema.URI: objects(uris),
            schema.STATUS: objects([str(image.status) for image in images]),
            schema.ERROR_MESSAGE: objects([image.error_message for image in images]),
            schema.ATTEMPTS: manifest.column(schema.ATTEMPTS).to_numpy() + 1,
            schema.SIZE_BYTES: _first_known(
                [len(image.image_bytes) or -1 for image in images], listed[schema.SIZE_BYTES]
            ),
            schema.MTIME: _first_time([image.mtime for image in images], listed[schema.MTIME]),
            schema.ETAG: objects([image.etag or etag for image, etag in zip(images, listed[schema.ETAG], strict=True)]),
            schema.CONTENT_HASH: objects([image.content_hash for image in images]),
            schema.IMAGE_BYTES: objects([image.image_bytes for image in images]),
        }

    def read_all(self, uris: Sequence[str]) -> list[ReadImage]:
        """Read images side by side. A thread that is free takes the next uri: a future for each would cost more than a small file does."""
        images = [ReadImage()] * len(uris)
        waiting = enumerate(uris)  # threads may share it: taking the next item is one step for Python

        def read_on(_: int) -> None:
            for row, uri in waiting:
                images[row] = self.read(uri)

        list(self.threads.map(read_on, range(min(self.fetch_threads, len(uris)))))
        return images

    def read(self, uri: str) -> ReadImage:
        """Read one image. Never raises: one image must not end a job."""
        started = time.perf_counter()
        try:
            fetched = self.fetcher.fetch(uri)
        except ImageError as error:
            return ReadImage(error.status, str(error))
        except Exception as error:
            return ReadImage(Status.CORRUPT, f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT])
        seconds = time.perf_counter() - started
        return ReadImage(
            image_bytes=fetched.image_bytes,
            mtime=None if fetched.mtime is None else np.datetime64(fetched.mtime.replace(tzinfo=None), "us"),
            etag=fetched.etag or "",
            content_hash=hash_content(fetched.image_bytes),
            seconds=seconds,
        )


def hash_content(image_bytes: bytes) -> str:
    """Hash encoded bytes, so that identical files are found: BLAKE2b of 128 bits, as hexadecimal digits."""
    return hashlib.blake2b(image_bytes, digest_size=16).hexdigest()


def objects(values: list[Any]) -> np.ndarray:
    """A column of Python objects. `np.array` would make a matrix of equally long lists."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _listed(manifest: pa.Table) -> dict[str, Any]:
    """Take the columns that the listing filled, without nulls."""
    mtimes = manifest.column(schema.MTIME).cast(pa.timestamp("us")).to_numpy()
    return {
        schema.SIZE_BYTES: manifest.column(schema.SIZE_BYTES).fill_null(-1).to_numpy(),
        schema.MTIME: mtimes.astype("datetime64[us]"),
        schema.ETAG: manifest.column(schema.ETAG).fill_null("").to_pylist(),
    }


def _first_known(sizes: list[int], listed: np.ndarray) -> np.ndarray:
    """The sizes that were read, and the listed ones where nothing was read (-1)."""
    read = np.array(sizes, dtype=np.int64)
    return np.where(read == -1, listed, read)


def _first_time(times: list[np.datetime64 | None], listed: np.ndarray) -> np.ndarray:
    """The times that reading told, and the listed ones where it told none."""
    read = np.array([UNKNOWN_TIME if time is None else time for time in times], dtype="datetime64[us]")
    return np.where(np.isnat(read), listed, read)

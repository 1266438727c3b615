"""Decode: encoded image → pixels at the models' input sizes. A failure becomes the row's status."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import ClassVar, NamedTuple

import numpy as np

from mlcls_ray import schema
from mlcls_ray.errors import ImageError, Status, one_image
from mlcls_ray.images.decode import Decoded, decode
from mlcls_ray.images.resize import can_compile
from mlcls_ray.stages.read import objects
from mlcls_ray.stages.spec import Batch, RunSpec, pixels_column

Size = tuple[int, int]
FULL_SIZE: Size = (1 << 30, 1 << 30)
"""Larger than any image: the size to decode at where a smaller one would change the pixels."""
COMPILED_AFTER = 300
"""Images after which a worker loads the compiled resize: it gives the same pixels, saves 2 ms an image, and takes a second to load."""

BUFFER_BYTES = 1 << 24
"""Holds most images: 4 million pixels. Untouched memory costs nothing."""


class DecodedImage(NamedTuple):
    """One image that was decoded, or why it was not."""

    status: Status = Status.OK
    error_message: str = ""
    width: int = -1
    height: int = -1
    format: str = ""
    seconds: float = 0.0
    """CPU time of decode and resize."""


SKIPPED = DecodedImage()
"""For a row that failed earlier. It keeps its status."""


class Decode:
    """A batch with `image_bytes` → the batch with `width`, `height`, `format` and pixels.

    There is one column of pixels for each distinct preprocessing, `pixels_column`, uint8 [N, H, W, 3], zeros where a row is not `ok`.
    `image_bytes` stay for the rows that get an annotated image.
    """

    uses_device: ClassVar[bool] = False

    def __init__(
        self, spec: RunSpec, decode: Callable[..., Decoded] = decode, compiled_after: int = COMPILED_AFTER
    ) -> None:
        """`decode`: as `images.decode.decode`."""
        job = spec.job
        self.decode = decode
        self.compiled_after = compiled_after if job.decode == "auto" else sys.maxsize
        self.images = 0
        """Number of images that were decoded."""
        self.buffers = local()
        self.max_pixels = job.max_pixels
        self.rows = spec.rows
        self.annotated = {"none": 0, "all": spec.rows}.get(str(job.annotate), job.annotate)
        """Number of annotated images."""
        self.preprocesses = spec.preprocesses
        sizes = [preprocess.min_decode_size if job.decode == "auto" else None for preprocess in self.preprocesses]
        self.by_size = sorted(zip(self.preprocesses, sizes, strict=True), key=lambda pair: pair[1] or FULL_SIZE)
        """Preprocessings with the smallest size to decode at, smallest first, so that one decoded image can serve several."""
        # The usual worker has one CPU; its batches are decoded side by side already.
        self.threads = ThreadPoolExecutor(spec.engine_threads, "decode") if spec.engine_threads > 1 else None
        self.seconds = {"decode": 0.0}

    def __call__(self, batch: Batch) -> Batch:
        columns = dict(batch)
        encoded = columns.pop(schema.IMAGE_BYTES)
        pixels = {
            pixels_column(preprocess): np.zeros((len(encoded), *preprocess.pixels_shape), np.uint8)
            for preprocess in self.preprocesses
        }
        statuses, messages = columns[schema.STATUS].copy(), columns[schema.ERROR_MESSAGE].copy()

        def decode_row(row: int) -> DecodedImage:
            is_ok = statuses[row] == Status.OK.value
            return (
                self.decode_image(encoded[row], {name: column[row] for name, column in pixels.items()})
                if is_ok
                else SKIPPED
            )

        mapped = self.threads.map if self.threads else map
        images = list(mapped(decode_row, range(len(encoded))))
        self.seconds["decode"] += sum(image.seconds for image in images)
        for row, image in enumerate(images):
            if image.status is not Status.OK:
                statuses[row], messages[row] = image.status.value, image.error_message
        columns |= {
            schema.STATUS: statuses,
            schema.ERROR_MESSAGE: messages,
            schema.WIDTH: np.array([image.width for image in images], dtype=np.int32),
            schema.HEIGHT: np.array([image.height for image in images], dtype=np.int32),
            schema.FORMAT: objects([image.format for image in images]),
            **pixels,
        }
        if self.annotated:
            is_kept = self.is_annotated(columns[schema.ROW_ID]) & (statuses == Status.OK.value)
            columns[schema.IMAGE_BYTES] = objects(
                [image_bytes if kept else b"" for image_bytes, kept in zip(encoded, is_kept, strict=True)]
            )
        return columns

    def decode_image(self, image_bytes: bytes, out: dict[str, np.ndarray]) -> DecodedImage:
        """Decode one image, and write its pixels into `out`: by column, uint8 [H, W, 3]. Never raises: one image must not end a job.

        It is decoded once, unless one preprocessing can do with a smaller size and another cannot.
        """
        started = time.thread_time()
        decoded: Decoded | None = None
        used: Size | None = None
        try:
            with one_image():
                for preprocess, size in self.by_size:
                    if decoded is None or not _serves(decoded, used, size):
                        decoded, used = self.decode(image_bytes, self.max_pixels, size, self.buffer()), size
                    preprocess.to_pixels(decoded.image, self.is_compiled, out[pixels_column(preprocess)])
        except ImageError as error:
            status, message = error.status, str(error)
        else:
            assert decoded is not None  # there is a model at least
            self.images += 1
            seconds = time.thread_time() - started
            return DecodedImage(Status.OK, "", decoded.width, decoded.height, decoded.format, seconds)
        for column in out.values():
            column[:] = 0
        seconds = time.thread_time() - started
        if decoded is None:
            return DecodedImage(status, message, seconds=seconds)
        return DecodedImage(status, message, decoded.width, decoded.height, decoded.format, seconds)

    @property
    def is_compiled(self) -> bool:
        """True once the compiled resize pays. It is loaded then."""
        return self.images >= self.compiled_after and can_compile()

    def buffer(self) -> np.ndarray:
        """Return the memory of this thread that each of its images is decoded into: warm in the processor's cache."""
        if not hasattr(self.buffers, "pixels"):
            self.buffers.pixels = np.empty(BUFFER_BYTES, np.uint8)
        pixels: np.ndarray = self.buffers.pixels
        return pixels

    def is_annotated(self, row_ids: np.ndarray) -> np.ndarray:
        """Choose the rows that get an annotated image, evenly spread, the same ones in each attempt: bool [n]."""
        rows = max(self.rows, 1)
        if int(self.annotated) >= rows:
            return np.ones(len(row_ids), dtype=bool)
        chosen: np.ndarray = (row_ids + 1) * self.annotated // rows > row_ids * self.annotated // rows
        return chosen


def _serves(decoded: Decoded, used: Size | None, size: Size | None) -> bool:
    """Tell whether decoding again, at `size`, would give the image that was decoded at `used`."""
    is_full = decoded.image.shape[:2] == (decoded.height, decoded.width)
    (width, height), (other_width, other_height) = used or FULL_SIZE, size or FULL_SIZE
    return used == size or (is_full and other_width >= width and other_height >= height)

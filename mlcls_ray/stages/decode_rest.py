"""DecodeRest, before a stage that decodes on the card: check the JPEGs that the card can decode, and decode everything else."""

from __future__ import annotations

import time
from typing import ClassVar, NamedTuple

import numpy as np

from mlcls_ray import schema
from mlcls_ray.engines.card.decoder import MAX_CARD_PIXELS
from mlcls_ray.errors import Status
from mlcls_ray.images.decode import check_jpeg
from mlcls_ray.images.jpeg_header import can_decode_on_card, read_jpeg_header
from mlcls_ray.stages.decode import SKIPPED, Decode, DecodedImage
from mlcls_ray.stages.read import objects
from mlcls_ray.stages.spec import Batch, RunSpec, pixels_column


class Prepared(NamedTuple):
    """One image on its way to the card: its packed `JpegHeader`, or its pixels by preprocessing as bytes, or why it has neither."""

    image: DecodedImage
    header: bytes = b""
    pixels: tuple[bytes, ...] = ()


class DecodeRest:
    """A batch with `image_bytes` → the batch with `width`, `height` and `format`, a `jpeg_header` for each image that the card is to
    decode, and the pixels of every other image.

    The encoded bytes stay for the card and for annotated images. Pixels are bytes here, empty for the card's rows: an array would hold
    zeros for all of these.

    A card's decoder says nothing about many a JPEG whose data are damaged: an H200 gave pixels for each of 29 files that the CPU's decoder
    calls corrupt. So the data of each one are read by the CPU's decoder at an eighth of the size, for a fraction of the time that decoding
    takes; a damaged one then gets the CPU's status.
    """

    uses_device: ClassVar[bool] = False

    def __init__(self, spec: RunSpec) -> None:
        self.cpu = Decode(spec)
        self.max_pixels = spec.job.max_pixels
        self.columns = [pixels_column(preprocess) for preprocess in spec.preprocesses]
        self.shapes = [preprocess.pixels_shape for preprocess in spec.preprocesses]
        self.seconds = self.cpu.seconds

    def __call__(self, batch: Batch) -> Batch:
        encoded, statuses, messages = batch[schema.IMAGE_BYTES], batch[schema.STATUS], batch[schema.ERROR_MESSAGE]
        prepared = [
            self.prepare(image_bytes) if status == Status.OK.value else Prepared(SKIPPED)
            for image_bytes, status in zip(encoded, statuses, strict=True)
        ]
        images = [row.image for row in prepared]
        self.seconds["decode"] += sum(image.seconds for image in images)
        is_kept = np.array([bool(row.header) for row in prepared], dtype=bool)
        if self.cpu.annotated:
            is_kept |= self.cpu.is_annotated(batch[schema.ROW_ID])
        is_failed = np.array([image.status is not Status.OK for image in images], dtype=bool)
        pixels = {
            name: objects([row.pixels[number] if row.pixels else b"" for row in prepared])
            for number, name in enumerate(self.columns)
        }
        return {
            **batch,
            schema.STATUS: np.where(is_failed, objects([str(image.status) for image in images]), statuses),
            schema.ERROR_MESSAGE: np.where(is_failed, objects([image.error_message for image in images]), messages),
            schema.WIDTH: np.array([image.width for image in images], dtype=np.int32),
            schema.HEIGHT: np.array([image.height for image in images], dtype=np.int32),
            schema.FORMAT: objects([image.format for image in images]),
            schema.IMAGE_BYTES: np.where(is_kept & ~is_failed, encoded, b""),
            schema.JPEG_HEADER: objects([row.header for row in prepared]),
            **pixels,
        }

    def prepare(self, image_bytes: bytes) -> Prepared:
        """Check a JPEG for the card, or decode another image. Never raises: one image must not end a job."""
        started = time.thread_time()
        header = read_jpeg_header(image_bytes)
        if header and can_decode_on_card(header, min(self.max_pixels, MAX_CARD_PIXELS)):
            small = check_jpeg(image_bytes, self.max_pixels)
            if small and (small.width, small.height) == header.upright_size:
                seconds = time.thread_time() - started
                image = DecodedImage(Status.OK, "", small.width, small.height, small.format, seconds)
                return Prepared(image, header.pack())
        pixels = {name: np.zeros(shape, np.uint8) for name, shape in zip(self.columns, self.shapes, strict=True)}
        image = self.cpu.decode_image(image_bytes, pixels)
        if image.status is not Status.OK:
            return Prepared(image)
        return Prepared(image, pixels=tuple(column.tobytes() for column in pixels.values()))

"""DecodeOnCard: encoded JPEGs → pixels that are made on the card and stay there. What the card cannot decode, the CPU decodes."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np

from mlcls_ray import schema
from mlcls_ray.engines.card.decoder import CardBatch, CardDecoder
from mlcls_ray.errors import Status
from mlcls_ray.images.jpeg_header import JpegHeader
from mlcls_ray.stages.decode import Decode
from mlcls_ray.stages.spec import Batch, RunSpec, pixels_column


class DecodeOnCard:
    """A batch of `DecodeRest` → the batch with pixels on the card, one array for each distinct preprocessing, as `Decode` has them.

    An image that the card does not decode after all goes through the CPU's decoder, and gets what that says of it. So does one that may be
    the reason that cards are lost.
    """

    uses_device: ClassVar[bool] = True

    def __init__(self, spec: RunSpec, decoder: CardDecoder | None = None) -> None:
        """`decoder`: the card's, if it is not to be made here.

        Raises:
            UsageError: the card's decoder does not answer.
        """
        self.cpu = Decode(spec)
        self.suspects = spec.suspects
        self.decoder = decoder or CardDecoder(spec.device.index, spec.preprocesses)
        self.columns = [pixels_column(preprocess) for preprocess in spec.preprocesses]
        self.shapes = [preprocess.pixels_shape for preprocess in spec.preprocesses]
        self.seconds = {"decode_on_card": 0.0, **self.cpu.seconds}

    def __call__(self, batch: Batch) -> Batch:
        """Raises: an error that `is_out_of_memory` knows: half the batch may fit. DeviceLostError: this process must end."""
        started = time.perf_counter()
        columns = dict(batch)
        encoded, packed = columns[schema.IMAGE_BYTES], columns.pop(schema.JPEG_HEADER)
        headers = [
            JpegHeader.unpack(header) if header and row_id not in self.suspects else None
            for header, row_id in zip(packed, columns[schema.ROW_ID].tolist(), strict=True)
        ]
        images = [image_bytes if header else b"" for image_bytes, header in zip(encoded, headers, strict=True)]
        card = self.decoder.decode(images, headers)
        self.put_pixels(card, columns)
        refused = np.array(
            [row for row, header in enumerate(packed) if header and not card.decoded[row]], dtype=np.int64
        )
        if len(refused):
            self.decode_on_cpu(refused, card, columns)
        columns |= dict(zip(self.columns, card.pixels, strict=True))
        if self.cpu.annotated:
            is_ok = columns[schema.STATUS] == Status.OK.value
            columns[schema.IMAGE_BYTES] = np.where(is_ok & self.cpu.is_annotated(columns[schema.ROW_ID]), encoded, b"")
        else:
            del columns[schema.IMAGE_BYTES]
        self.seconds["decode_on_card"] += time.perf_counter() - started
        return columns

    def put_pixels(self, card: CardBatch, columns: Batch) -> None:
        """Upload the pixels that `DecodeRest` made."""
        for number, (name, shape) in enumerate(zip(self.columns, self.shapes, strict=True)):
            made = columns[name]
            rows = np.array([row for row, pixels in enumerate(made) if pixels], dtype=np.int64)
            if len(rows):
                card.put(number, rows, np.stack([np.frombuffer(made[row], np.uint8).reshape(shape) for row in rows]))

    def decode_on_cpu(self, rows: np.ndarray, card: CardBatch, columns: Batch) -> None:
        """Decode the rows that the card refused by the stage `Decode`, and upload their pixels."""
        taken = (schema.ROW_ID, schema.STATUS, schema.ERROR_MESSAGE, schema.IMAGE_BYTES)
        decoded = self.cpu({name: columns[name][rows] for name in taken})
        for name in (schema.STATUS, schema.ERROR_MESSAGE, schema.WIDTH, schema.HEIGHT, schema.FORMAT):
            columns[name] = columns[name].copy()  # a batch of Ray's is not ours to change
            columns[name][rows] = decoded[name]
        for number, name in enumerate(self.columns):
            card.put(number, rows, decoded[name])
        self.seconds["decode"] = self.cpu.seconds["decode"]

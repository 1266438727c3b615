"""Try a card: small JPEGs whose pixels we know. nvImageCodec says nothing where its decoder is missing; it returns no images."""

from __future__ import annotations

import io
import logging
from functools import cache
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mlcls_ray.engines.card.backend import CardBackend
from mlcls_ray.errors import UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.jpeg_header import JpegHeader, read_jpeg_header

if TYPE_CHECKING:
    from mlcls_ray.engines.card.decoder import CardBatch, CardDecoder

log = logging.getLogger("mlcls_ray.engines")
MAX_DIFFERENCE = 4.0
"""Levels, in the mean, by which the card's pixels may differ from the CPU's. Two correct decoders differ by 0.2."""


@cache
def probes() -> tuple[bytes, ...]:
    """Make a baseline and a progressive JPEG of one size, and two baseline ones of other sizes. All are of smooth colours."""
    return make_probe(320, 240), make_probe(320, 240, progressive=True), make_probe(200, 300), make_probe(640, 400)


def make_probe(width: int, height: int, progressive: bool = False) -> bytes:
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
    image = np.stack(np.broadcast_arrays(across, down, 255 - (across + down) / 2), axis=2).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=90, progressive=progressive)
    return out.getvalue()


def decodes_probe(backend: CardBackend) -> bool:
    """Tell whether the card decodes an ordinary JPEG."""
    return backend.decode(probes()[:1])[0] is not None


def check_probe(decoder: CardDecoder) -> None:
    """Decode and resize the probes on the card, and compare them with the CPU's pixels.

    Raises:
        UsageError: the card does not decode them, or decodes something else.
    """
    name = decoder.backend.name
    baseline, progressive, small, large = probes()
    batch = decode_probes(decoder, (baseline, progressive))
    if not batch.decoded[0]:
        if decoder.group_bytes < decoder.backend.image_bytes:  # it met an error of memory
            raise UsageError(f"{name} is out of memory; end the programs that use it, or choose another card")
        raise UsageError(
            f"{name}: nvImageCodec decodes no JPEG on the card. Its nvJPEG library may be missing: "
            "pip install 'mlcls-ray[gpu]'"
        )
    if not batch.decoded[1]:
        log.warning("%s decodes no progressive JPEGs; the CPUs of its workers decode them, which is slow", name)
    # The decoder puts an image where the last one was, whose size was another one.
    decode_probes(decoder, (large, small))
    decode_probes(decoder, (small, large))


def decode_probes(decoder: CardDecoder, images: tuple[bytes, ...]) -> CardBatch:
    """Decode and resize images on the card.

    Raises:
        UsageError: what it decoded has other pixels than the CPU's.
    """
    batch = decoder.decode(images, [_header(image_bytes) for image_bytes in images])
    for preprocess, pixels in zip(decoder.preprocesses, map(decoder.backend.download, batch.pixels), strict=True):
        for image_bytes, made in zip(compress(images, batch.decoded), pixels[batch.decoded], strict=True):
            expected = preprocess.to_pixels(decode(image_bytes).image)
            difference = np.abs(made.astype(np.int16) - expected).mean()
            if difference > MAX_DIFFERENCE:
                raise UsageError(
                    f"{decoder.backend.name}: the card's pixels differ from the CPU's by {difference:.1f} levels in the mean; "
                    "update the driver and nvImageCodec"
                )
    return batch


def _header(image_bytes: bytes) -> JpegHeader:
    header = read_jpeg_header(image_bytes)
    assert header is not None
    return header

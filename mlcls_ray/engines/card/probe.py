"""Try a card: two small JPEGs whose pixels we know. nvImageCodec says nothing where its decoder is missing; it returns no images."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mlcls_ray.engines.card.backend import CardBackend
from mlcls_ray.errors import UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.jpeg_header import JpegHeader, read_jpeg_header

if TYPE_CHECKING:
    from mlcls_ray.engines.card.decoder import CardDecoder

MAX_DIFFERENCE = 4.0
"""Levels, in the mean, by which the card's pixels may differ from the CPU's. Two correct decoders differ by 0.2."""


@cache
def probes() -> tuple[bytes, ...]:
    """Make a baseline and a progressive JPEG, 320x240, of smooth colours."""
    across, down = np.linspace(0, 255, 320), np.linspace(0, 255, 240)[:, None]
    image = np.stack(np.broadcast_arrays(across, down, 255 - (across + down) / 2), axis=2).astype(np.uint8)
    encoded = []
    for progressive in (False, True):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=90, progressive=progressive)
        encoded.append(out.getvalue())
    return tuple(encoded)


def decodes_probe(backend: CardBackend) -> bool:
    """Tell whether the card decodes an ordinary JPEG."""
    return backend.decode(probes()[:1])[0] is not None


def check_probe(decoder: CardDecoder) -> None:
    """Decode and resize the probes on the card, and compare them with the CPU's pixels.

    Raises:
        UsageError: the card does not decode them, or decodes something else.
    """
    name = decoder.backend.name
    batch = decoder.decode(probes(), [_header(probe) for probe in probes()])
    if not batch.decoded.all():
        kind = "baseline" if not batch.decoded[0] else "progressive"
        raise UsageError(
            f"{name}: nvImageCodec decodes no {kind} JPEG on the card. Its nvJPEG library may be missing: "
            "pip install 'mlcls-ray[gpu]'; or use placement 'split'"
        )
    for preprocess, pixels in zip(decoder.preprocesses, map(decoder.backend.download, batch.pixels), strict=True):
        expected = np.stack([preprocess.to_pixels(decode(probe).image) for probe in probes()])
        difference = float(np.abs(pixels.astype(np.int16) - expected).mean())
        if difference > MAX_DIFFERENCE:
            raise UsageError(
                f"{name}: the card's pixels differ from the CPU's by {difference:.1f} levels in the mean; "
                "update the driver and nvImageCodec, or use placement 'split'"
            )


def _header(image_bytes: bytes) -> JpegHeader:
    header = read_jpeg_header(image_bytes)
    assert header is not None
    return header

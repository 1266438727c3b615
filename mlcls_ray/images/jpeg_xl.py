"""Decode JPEG XL by libjxl (imagecodecs), which refuses a file with data missing. The header is read first: `jpeg_xl_header`."""

from __future__ import annotations

import numpy as np

from mlcls_ray.images.decoded import Decoded, Reader, check_pixels, corrupt, import_extra, single, unsupported
from mlcls_ray.images.jpeg_xl_header import CODE_STREAM, CONTAINER, Header, find_code_stream, read_header

EXTRA, PACKAGE = "jxl", "imagecodecs"


def decode_jpeg_xl(image_bytes: bytes, max_pixels: int) -> Decoded:
    """Decode a JPEG XL, or the first frame of an animated one, to upright RGB. libjxl turns it: EXIF does not count.

    Alpha is dropped, and wider samples keep their high byte. Colours stay in their profile, as with other formats.

    Raises:
        ImageError: `too_large`, `unsupported` or `corrupt`.
    """
    imagecodecs = import_extra(PACKAGE, EXTRA, READER.name)
    code_stream = find_code_stream(image_bytes)
    header = read_header(code_stream)
    check_pixels(header.width, header.height, max_pixels)
    if header.is_float:
        raise unsupported("a picture of floats")
    if header.has_black:
        raise unsupported("a JPEG XL of CMYK")
    try:
        decoded = imagecodecs.jpegxl_decode(code_stream, index=0, numthreads=1)
    except MemoryError:
        raise
    except Exception as error:  # JpegxlError, ValueError
        raise corrupt(f"the JPEG XL's data are damaged or end early ({error})") from None
    image = _to_rgb(np.asarray(decoded), header)
    return Decoded(image, "jxl", image.shape[1], image.shape[0])


def _to_rgb(decoded: np.ndarray, header: Header) -> np.ndarray:
    """Take the colours of whole numbers [H, W] or [H, W, 1..4] of `header.bits` bits, as uint8 [H, W, 3].

    libjxl gives the linear light of a lossy picture with an ICC profile; it gets sRGB's curve.
    """
    if decoded.ndim == 4:  # extra channels that are no alpha come as planes
        decoded = decoded[0]
    samples = decoded[..., None] if decoded.ndim == 2 else decoded
    if header.is_linear:
        scaled = samples[..., :3] / ((1 << header.bits) - 1)
        curved = np.where(scaled <= 0.0031308, 12.92 * scaled, 1.055 * scaled ** (1 / 2.4) - 0.055)
        samples = np.round(255 * curved).astype(np.uint8)
    elif header.bits > 8:
        samples = (samples >> (header.bits - 8)).astype(np.uint8)
    elif header.bits < 8:
        samples = (samples.astype(np.uint16) * 255 // ((1 << header.bits) - 1)).astype(np.uint8)
    if samples.shape[2] < 3:
        return np.repeat(samples[..., :1], 3, axis=2)
    return np.ascontiguousarray(samples[..., :3])


READER = Reader(
    "JPEG XL",
    lambda image_bytes: image_bytes.startswith((CODE_STREAM, CONTAINER)),
    single(decode_jpeg_xl),
    (".jxl",),
    EXTRA,
    PACKAGE,
)

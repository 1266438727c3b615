"""Decode JPEG 2000 by Pillow's OpenJPEG, which refuses a file with data missing. The size is read from the code stream first."""

from __future__ import annotations

import io
import struct

from PIL import Image, features

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.boxes import read_boxes
from mlcls_ray.images.decoded import Decoded, Reader, check_pixels, corrupt, single, unsupported
from mlcls_ray.images.pillow import to_rgb

CODE_STREAM = b"\xff\x4f\xff\x51"
CONTAINER = b"\0\0\0\x0cjP  \r\n\x87\n"
MAX_TILES = 1 << 14
"""Tiles of an image. A large scan has some hundreds, and each one costs time however small it is."""
MAX_COMPONENTS = 4
_SIZ = struct.Struct(">HHIIIIIIIIH")
"""The marker segment SIZ of ISO/IEC 15444-1, A.5.1: length, profile, the corners of the image and of the first tile, components."""


def decode_jpeg_2000(image_bytes: bytes, max_pixels: int) -> Decoded:
    """Decode a JPEG 2000 file, or its bare code stream, to RGB.

    Raises:
        ImageError: `too_large`, `unsupported` or `corrupt`.
    """
    if not features.check("jpg_2000"):
        raise ImageError(Status.UNSUPPORTED, "JPEG 2000 is not read: this build of Pillow has no JPEG 2000")
    _check_size(image_bytes, _find_code_stream(image_bytes), max_pixels)
    try:
        with Image.open(io.BytesIO(image_bytes), formats=("JPEG2000",)) as opened:
            check_pixels(*opened.size, max_pixels)
            image = to_rgb(opened)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # the file around the code stream claims another size
        raise ImageError(Status.TOO_LARGE, str(error)) from None
    except Exception as error:  # of Pillow's parser
        raise corrupt(f"the JPEG 2000's data are damaged or end early ({type(error).__name__}: {error})") from None
    return Decoded(image, "jpeg2000", image.shape[1], image.shape[0])


def _find_code_stream(image_bytes: bytes) -> int:
    if image_bytes.startswith(CODE_STREAM):
        return 0
    for box in read_boxes(image_bytes):
        if box.kind == b"jp2c":
            return box.start
    raise corrupt("a JPEG 2000 file without a code stream")


def _check_size(image_bytes: bytes, start: int, max_pixels: int) -> None:
    """Check what the code stream says of its size, whatever the file around it says.

    Raises:
        ImageError: `too_large`, `unsupported` or `corrupt`.
    """
    if image_bytes[start : start + 4] != CODE_STREAM or len(image_bytes) < start + 4 + _SIZ.size:
        raise corrupt("the JPEG 2000 ends inside its header")
    numbers = _SIZ.unpack_from(image_bytes, start + 4)
    right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top, components = numbers[2:]
    check_pixels(right - left, bottom - top, max_pixels)
    if not 1 <= components <= MAX_COMPONENTS:
        raise unsupported(f"a JPEG 2000 of {components} components")
    if tile_width < 1 or tile_height < 1:
        raise corrupt("a JPEG 2000 of empty tiles")
    tiles = -(-(right - tiles_left) // tile_width) * -(-(bottom - tiles_top) // tile_height)
    if tiles > MAX_TILES:
        raise ImageError(Status.TOO_LARGE, f"a JPEG 2000 of {tiles} tiles; the limit is {MAX_TILES}")


READER = Reader(
    "JPEG 2000",
    lambda image_bytes: image_bytes.startswith((CODE_STREAM, CONTAINER)),
    single(decode_jpeg_2000),
    (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx") if features.check("jpg_2000") else (),
)

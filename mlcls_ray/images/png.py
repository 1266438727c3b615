"""Decode PNG. Only the chunks that decide pixels reach the decoder: a damaged or huge text or profile costs no image."""

from __future__ import annotations

import struct
import zlib

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decoded import Decoded, Reader, check_pixels, corrupt, single, unsupported
from mlcls_ray.images.opencv import imdecode
from mlcls_ray.images.orientation import SIDES_SWAPPED, read_orientation, turn

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 200_000
"""A file of 100 MB in chunks of 512 bytes has as many. Millions of empty chunks would hold a worker for a minute."""
_PALETTE = 3
_IS_ANCILLARY = 0x20
"""Set in the first letter of chunks that a reader may pass over."""
_END = b"\0\0\0\0IEND\xaeB`\x82"


def decode_png(image_bytes: bytes, max_pixels: int) -> Decoded:
    """Decode a PNG, or the default image of an animated one, to upright RGB.

    Raises:
        ImageError: `too_large`, `unsupported` or `corrupt`.
    """
    width, height, color_type = _read_header(image_bytes)
    check_pixels(width, height, max_pixels)
    pieces, kinds, orientation = _chunks(image_bytes)
    if color_type == _PALETTE and b"PLTE" not in kinds:
        raise corrupt("a PNG without its palette")
    if b"IDAT" not in kinds:
        raise corrupt("a PNG without image data")
    image = imdecode(b"".join((SIGNATURE, *pieces, _END)))
    if image is None:
        raise corrupt("the PNG's image data is damaged or ends early")
    size = (height, width) if orientation in SIDES_SWAPPED else (width, height)
    return Decoded(turn(image, orientation), "png", *size)


def _read_header(image_bytes: bytes) -> tuple[int, int, int]:
    kind = image_bytes[12:16]
    if kind == b"CgBI":
        raise unsupported("Apple's own PNG (CgBI)")
    if kind != b"IHDR" or len(image_bytes) < 33:
        raise corrupt("a PNG without a header")
    width, height, _, color_type = struct.unpack_from(">IIBB", image_bytes, 16)
    return width, height, color_type


def _chunks(image_bytes: bytes) -> tuple[list[memoryview], set[bytes], int]:
    """Collect the chunks that decide pixels: their bytes, their kinds, and the EXIF orientation."""
    view = memoryview(image_bytes)
    pieces: list[memoryview] = []
    kinds: set[bytes] = set()
    orientation = 1
    place, before = len(SIGNATURE), b""
    for _ in range(MAX_CHUNKS):
        if place + 12 > len(view):
            return pieces, kinds, orientation  # without its end: the decoder knows whether pixels are missing
        length, kind = struct.unpack_from(">I4s", view, place)
        end = place + 12 + length
        is_critical = not kind[0] & _IS_ANCILLARY
        if kind == b"IEND" or (end > len(view) and not is_critical):
            return pieces, kinds, orientation
        if end > len(view):
            raise corrupt(f"the PNG ends inside its {kind.decode('ascii', 'replace')}")
        is_read = kind in (b"IHDR", b"PLTE", b"IDAT", b"eXIf")
        if is_read or is_critical:
            is_whole = zlib.crc32(view[place + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
            if is_critical and not is_whole:
                raise corrupt(f"the PNG's {kind.decode('ascii', 'replace')} has a wrong checksum")
            if is_critical and not is_read:
                raise unsupported(f"a PNG with the chunk {kind.decode('ascii', 'replace')!r}")
            if kind == b"eXIf" and is_whole:
                orientation = read_orientation(bytes(view[place + 8 : end - 4]))
            elif is_critical and not (kind == b"IDAT" and b"IDAT" in kinds and before != b"IDAT"):
                pieces.append(view[place:end])
                kinds.add(kind)
        place, before = end, kind
    raise ImageError(Status.TOO_LARGE, f"a PNG of more than {MAX_CHUNKS} chunks")


READER = Reader("PNG", lambda image_bytes: image_bytes.startswith(SIGNATURE), single(decode_png), (".png", ".apng"))

"""The header of a JPEG XL: the numbers that decide how much memory decoding takes, and what its samples mean.

It follows ISO/IEC 18181-1, annex D (libjxl's `headers.cc` and `image_metadata.cc`), as far as the flag of an ICC profile.
"""

from __future__ import annotations

from typing import NamedTuple

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.boxes import read_boxes
from mlcls_ray.images.decoded import corrupt, unsupported

CODE_STREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
MAX_HEADER = 1 << 13
"""Bytes that are looked at; a name of a channel has up to 1,071."""
MAX_EXTRA_CHANNELS = 4
"""Channels beside the colours: alpha, depth and the like. Each is decoded at full size, and a file may name thousands."""
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA, _SPOT, _BLACK, _CFA = 0, 2, 4, 5
"""Kinds of extra channels that have fields of their own, or change the colours."""
_SWAPPED = (4, 5, 6, 7)
"""Orientations, less one, that change places of width and height."""


class Header(NamedTuple):
    """The size of the upright picture in pixels, the bits of a sample, and what needs a look before decoding."""

    width: int
    height: int
    bits: int = 8
    is_float: bool = False
    has_black: bool = False
    is_linear: bool = False
    """True for a lossy picture whose ICC profile libjxl does not apply: it gives linear light."""


def find_code_stream(image_bytes: bytes) -> bytes:
    """Take the code stream out of its container, if it has one.

    Raises:
        ImageError: `corrupt`.
    """
    if image_bytes.startswith(CODE_STREAM):
        return image_bytes
    pieces = []
    for box in read_boxes(image_bytes):
        if box.kind == b"jxlc":
            return image_bytes[box.start : box.end]
        if box.kind == b"jxlp":
            pieces.append(image_bytes[box.start + 4 : box.end])  # its number comes first
    if not pieces:
        raise corrupt("a JPEG XL without a code stream")
    return b"".join(pieces)


def read_header(code_stream: bytes) -> Header:
    """Read the header of a code stream.

    Raises:
        ImageError: `corrupt`; `unsupported`: a kind of channel that nobody here knows; `too_large`: too many channels.
    """
    if not code_stream.startswith(CODE_STREAM):
        raise corrupt("a JPEG XL without a header")
    bits = _Bits(code_stream[2:MAX_HEADER])
    width, height = _size(bits)
    if bits.flag():  # all as usual
        return Header(width, height)
    if bits.flag():  # it has further fields
        if bits.read(3) in _SWAPPED:
            width, height = height, width
        if bits.flag():
            _size(bits)  # at which it is meant to be shown
        if bits.flag():
            _preview_size(bits)
        if bits.flag():
            _animation(bits)
    depth, is_float = _depth(bits)
    bits.read(1)  # whether 16 bits are enough
    count = bits.choose((0, 0), (0, 1), (4, 2), (12, 1))
    if count > MAX_EXTRA_CHANNELS:
        raise ImageError(
            Status.TOO_LARGE, f"a JPEG XL of {count} channels beside its colours; the limit is {MAX_EXTRA_CHANNELS}"
        )
    kinds = [_extra_channel(bits) for _ in range(count)]
    is_xyb = bits.flag()
    has_profile = not bits.flag() and bits.flag()
    return Header(width, height, depth, is_float, _BLACK in kinds, is_xyb and has_profile)


class _Bits:
    """Reads bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def read(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise corrupt("the JPEG XL ends inside its header")
        number = self.value & ((1 << count) - 1)
        self.value >>= count
        return number

    def flag(self) -> bool:
        return bool(self.read(1))

    def choose(self, *ways: tuple[int, int]) -> int:
        """Read a number in one of four ways: so many bits, and what is added to them."""
        count, added = ways[self.read(2)]
        return self.read(count) + added


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.flag()
    height = 8 * (bits.read(5) + 1) if is_small else bits.choose((9, 1), (13, 1), (18, 1), (30, 1))
    ratio = _RATIOS[bits.read(3)]
    if ratio is not None:
        return height * ratio[0] // ratio[1], height
    return (8 * (bits.read(5) + 1) if is_small else bits.choose((9, 1), (13, 1), (18, 1), (30, 1))), height


def _preview_size(bits: _Bits) -> None:
    is_small = bits.flag()
    ways = ((0, 16), (0, 32), (5, 1), (9, 33)) if is_small else ((6, 1), (8, 65), (10, 321), (12, 1345))
    bits.choose(*ways)
    if bits.read(3) == 0:
        bits.choose(*ways)


def _animation(bits: _Bits) -> None:
    bits.choose((0, 100), (0, 1000), (10, 1), (30, 1))
    bits.choose((0, 1), (0, 1001), (8, 1), (10, 1))
    bits.choose((0, 0), (3, 0), (16, 0), (32, 0))
    bits.read(1)


def _depth(bits: _Bits) -> tuple[int, bool]:
    if bits.flag():
        depth = bits.choose((0, 32), (0, 16), (0, 24), (6, 1))
        bits.read(4)
        return depth, True
    return bits.choose((0, 8), (0, 10), (0, 12), (6, 1)), False


def _extra_channel(bits: _Bits) -> int:
    """Pass over an extra channel, and return its kind."""
    if bits.flag():
        return _ALPHA
    kind = bits.choose((0, 0), (0, 1), (4, 2), (6, 18))
    _depth(bits)
    bits.choose((0, 0), (0, 3), (0, 4), (3, 1))
    bits.read(8 * bits.choose((0, 0), (4, 0), (5, 16), (10, 48)))
    if kind == _ALPHA:
        bits.read(1)
    elif kind == _SPOT:
        bits.read(64)
    elif kind == _CFA:
        bits.choose((0, 1), (2, 0), (4, 3), (8, 19))
    elif kind > 16:
        raise unsupported(f"a JPEG XL with a channel of kind {kind}")
    return kind

"""Read what a JPEG's markers say, without decoding it: whether a card can decode the image, and how it is turned.

The walk is strict: whatever a camera or a program does not usually write is left to the CPU's decoder, which knows more cases. Markers are
described in ITU-T T.81, annex B; EXIF in the TIFF 6.0 and EXIF 2.32 specifications.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from mlcls_ray.images.decode import SIDES_SWAPPED

SOF_BASELINE, SOF_PROGRESSIVE = 0xC0, 0xC2
DHT, SOI, EOI, SOS, DQT, DRI, APP0, APP1, APP14, COM = 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xEE, 0xFE
SEGMENTS = frozenset({DHT, SOS, DQT, DRI, COM, SOF_BASELINE, SOF_PROGRESSIVE, *range(APP0, APP0 + 16)})
"""The markers with a segment that are understood. Others (arithmetic coding, lossless, hierarchical, DNL) are left to the CPU."""
MAX_SEGMENTS = 1000
MAX_SCANS = 100
"""A progressive JPEG of a camera or a program has about ten scans; a file of thousands is made to keep a decoder busy."""
SAMPLINGS = frozenset({(1, 1), (2, 1), (2, 2), (1, 2)})
"""Sampling factors of the luminance that are decoded on a card: 4:4:4, 4:2:2, 4:2:0, 4:4:0. The chrominance has (1, 1)."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
"""A marker, after any number of fill bytes."""
_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""The marker that ends entropy-coded data, in which FF 00 is the byte FF and D0 to D7 mark restarts. It begins with a literal byte, so
that `re` searches at the speed of memchr."""
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION = 0x0112
_SHORT = 3
_PACKED = struct.Struct("<HHBHB???")


class JpegHeader(NamedTuple):
    """The facts that a JPEG's markers tell."""

    width: int
    """The size of the stored image, before it is turned upright."""
    height: int
    components: int
    is_progressive: bool
    scans: int
    sampling: tuple[tuple[int, int], ...]
    """Horizontal and vertical sampling factor of each component."""
    is_ycc: bool
    """True if three components are certainly YCbCr, not RGB."""
    orientation: int
    """EXIF orientation, 1 to 8: 1 where there is none. 0: not certain, ask another reader."""
    is_whole: bool
    """True if the end marker comes after the last scan, with nothing odd between the scans."""

    def pack(self) -> bytes:
        """Pack the header into a few bytes, for a column of a batch."""
        numbers = (self.width, self.height, self.components, self.scans, self.orientation)
        flags = (self.is_progressive, self.is_ycc, self.is_whole)
        return _PACKED.pack(*numbers, *flags) + bytes(factor for pair in self.sampling for factor in pair)

    @classmethod
    def unpack(cls, packed: bytes) -> JpegHeader:
        """Make the header of the bytes that `pack` gave."""
        width, height, components, scans, orientation, is_progressive, is_ycc, is_whole = _PACKED.unpack_from(packed)
        factors = packed[_PACKED.size :]
        sampling = tuple(zip(factors[::2], factors[1::2], strict=True))
        return cls(width, height, components, is_progressive, scans, sampling, is_ycc, orientation, is_whole)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the image was turned upright."""
        return (self.height, self.width) if self.orientation in SIDES_SWAPPED else (self.width, self.height)


def can_decode_on_card(header: JpegHeader, max_pixels: int) -> bool:
    """Tell whether an NVIDIA card's decoder takes this JPEG, and gives it the CPU decoder's size, colours and orientation."""
    is_plain = header.is_whole and header.orientation > 0 and 0 < header.width * header.height <= max_pixels
    luminance, *chrominance = header.sampling
    if header.components == 1:
        has_known_colours = luminance == (1, 1)
    else:
        has_known_colours = header.is_ycc and luminance in SAMPLINGS and chrominance == [(1, 1), (1, 1)]
    scans = MAX_SCANS if header.is_progressive else 1
    return is_plain and has_known_colours and header.scans <= scans


def read_jpeg_header(image_bytes: bytes) -> JpegHeader | None:
    """Read the markers of a JPEG from its first byte to its end marker. None: it is no JPEG, or not one that cards decode. Never raises.

    A photograph of 50 kB takes about 30 microseconds: the entropy-coded data are searched for the next marker, not decoded.
    """
    frame: tuple[int, bytes] | None = None
    transform: int | None = None
    has_jfif = False
    exif: list[bytes] = []
    has_xmp_orientation = False
    scans = 0
    is_whole = False
    for marker, segment in _segments(image_bytes):
        if marker == EOI:
            is_whole = scans > 0
        elif marker == SOS:
            if frame is None:
                return None
            scans += 1
        elif marker in (SOF_BASELINE, SOF_PROGRESSIVE):
            if frame is not None:
                return None
            frame = marker, segment
        elif scans:
            continue  # tables between scans; what else may be there decides nothing
        elif marker == APP0 and segment.startswith(b"JFIF\0"):
            has_jfif = True
        elif marker == APP14 and segment.startswith(b"Adobe"):
            transform = segment[11] if len(segment) > 11 else -1
        elif marker == APP1 and segment.startswith(_EXIF):
            exif.append(segment[len(_EXIF) :])
        elif marker == APP1 and segment.startswith(_XMP):
            has_xmp_orientation = has_xmp_orientation or b"tiff:Orientation" in segment
    if frame is None or not scans:
        return None
    marker, segment = frame
    if len(segment) < 6:
        return None
    precision, height, width, components = struct.unpack_from(">BHHB", segment)
    if precision != 8 or not height or not width or components not in (1, 3) or len(segment) != 6 + 3 * components:
        return None
    ids = segment[6::3]
    return JpegHeader(
        width=width,
        height=height,
        components=components,
        is_progressive=marker == SOF_PROGRESSIVE,
        scans=scans,
        sampling=tuple((factors >> 4, factors & 15) for factors in segment[7::3]),
        is_ycc=components == 3
        and ids != b"RGB"
        and (transform == 1 or (transform is None and (has_jfif or ids == b"\1\2\3"))),
        orientation=_orientation(exif, has_xmp_orientation),
        is_whole=is_whole,
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each marker with its segment, up to the end marker; stop earlier where the file is cut, or something odd follows."""
    if not data.startswith(b"\xff\xd8\xff"):
        return
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.match(data, position)
        if found is None:
            return
        marker, start = found[1][0], found.end()
        if marker == EOI:
            yield EOI, b""
            return
        end = start + int.from_bytes(data[start : start + 2], "big")
        if marker not in SEGMENTS or end < start + 2 or end > len(data):
            return
        yield marker, data[start + 2 : end]
        position = end
        if marker == SOS:
            following = _MARKER_IN_SCAN.search(data, position)
            if following is None:
                return
            position = following.start()


def _orientation(exif: list[bytes], has_xmp_orientation: bool) -> int:
    """Read the orientation of EXIF: 1 where there is none, 0 where readers may disagree about it."""
    if len(exif) > 1:
        return 0
    orientation = _exif_orientation(exif[0]) if exif else None
    if orientation is None:  # not in EXIF; Pillow looks into XMP then
        return 0 if has_xmp_orientation else 1
    return orientation if 1 <= orientation <= 8 else 0


def _exif_orientation(tiff: bytes) -> int | None:
    """Read the orientation in the first directory of a TIFF structure: None where it has none, 0 where the structure is odd."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 0
    try:
        (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, offset)
        entries = [struct.unpack_from(f"{order}HHI", tiff, offset + 2 + 12 * entry) for entry in range(count)]
        values = [
            struct.unpack_from(f"{order}H", tiff, offset + 10 + 12 * entry)[0] if (kind, length) == (_SHORT, 1) else 0
            for entry, (tag, kind, length) in enumerate(entries)
            if tag == _ORIENTATION
        ]
    except struct.error:
        return 0
    if len(values) > 1:
        return 0
    return values[0] if values else None

"""The markers of a JPEG: its header, its orientation, and whether its scans hold every coefficient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images import MAX_PIXELS
from mlcls_ray.images.decoded import corrupt, unsupported
from mlcls_ray.images.orientation import EXIF_HEADER, read_orientation

MAX_SEGMENTS = 10_000
"""Segments of one JPEG. A profile or EXIF block of 16 MB has 255."""
MAX_SCANS = 100
"""Scans of one JPEG, as in libtiff; encoders write about ten. An empty scan costs three bytes and a pass over all coefficients."""
MAX_SCANNED = 16 * MAX_PIXELS
"""Pixels times scans."""
COEFFICIENTS = 64
SOI, END, SOS, APP0, APP1, APP14, COM, TEM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE, 0x01
_PROGRESSIVE = {0xC2, 0xCA}
_READ = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA}
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_NAMES = {0xC3: "lossless JPEG", 0xCB: "arithmetic-coded lossless JPEG", 0xF7: "JPEG-LS"}
_WITHOUT_LENGTH = {TEM, SOI, *range(0xD0, 0xD8)}
# They begin with a literal byte and have no group, so that `re` searches at the speed of memchr.
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MARKER_AFTER_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class Frame(NamedTuple):
    """The frame header (SOF). `components` are their identifiers."""

    marker: int
    precision: int
    width: int
    height: int
    components: bytes


class Segment(NamedTuple):
    """One segment: its marker, where it starts (at the 0xff before the marker) and ends, and where its payload starts."""

    marker: int
    start: int
    payload: int
    end: int


class Header(NamedTuple):
    """All up to the first scan: `first_scan` is its SOS segment."""

    frame: Frame
    orientation: int
    segments: list[Segment]
    first_scan: Segment


def read_header(image_bytes: bytes) -> Header:
    """Read a JPEG's segments up to its first scan.

    Raises:
        ImageError: `corrupt`, `unsupported` or `too_large`.
    """
    frame: Frame | None = None
    orientation = 0
    segments = []
    for segment in _segments(image_bytes):
        marker = segment.marker
        if marker == END:
            break
        segments.append(segment)
        if marker in _FRAMES:
            if frame is not None:
                raise corrupt("a JPEG with two frame headers")
            frame = _read_frame(image_bytes, segment)
        elif marker == APP1 and not orientation and image_bytes.startswith(EXIF_HEADER, segment.payload):
            orientation = read_orientation(image_bytes[segment.payload : segment.end])
        elif marker == SOS:
            if frame is None:
                raise corrupt("a JPEG with a scan before its frame header")
            return Header(frame, orientation or 1, segments, segment)
    raise corrupt("the JPEG ends before its first scan")


def _segments(image_bytes: bytes) -> Iterator[Segment]:
    """Walk over the segments; after a scan's header, its data are passed over. Ends where no marker follows."""
    place, pattern = 2, _MARKER
    for _ in range(MAX_SEGMENTS):
        found = pattern.search(image_bytes, place)
        if found is None:
            return
        start, payload = found.span()
        marker = image_bytes[payload - 1]
        pattern = _MARKER
        if marker == END:
            yield Segment(marker, start, payload, payload)
            return
        if marker in _WITHOUT_LENGTH:
            place = payload
            continue
        length = int.from_bytes(image_bytes[payload : payload + 2], "big")
        end = payload + length
        if length < 2 or end > len(image_bytes):
            raise corrupt("a segment of the JPEG has a wrong length, or the JPEG ends inside it")
        yield Segment(marker, start, payload + 2, end)
        place, pattern = end, _MARKER_AFTER_DATA if marker == SOS else _MARKER
    raise ImageError(Status.TOO_LARGE, f"a JPEG of more than {MAX_SEGMENTS} segments")


def _read_frame(image_bytes: bytes, segment: Segment) -> Frame:
    payload = image_bytes[segment.payload : segment.end]
    if segment.marker not in _READ:
        raise unsupported(_NAMES.get(segment.marker, "hierarchical JPEG"))
    if len(payload) < 6 or len(payload) < 6 + 3 * payload[5]:
        raise corrupt("the JPEG's frame header is too short")
    if payload[0] != 8:
        raise unsupported(f"{payload[0]}-bit JPEG")
    height, width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
    if not height and width:
        raise unsupported("a JPEG whose height follows its pixels (DNL)")
    return Frame(segment.marker, payload[0], width, height, payload[6 : 6 + 3 * payload[5] : 3])


def has_several_scans(header: Header) -> bool:
    """Tell whether the first scan leaves something to later ones."""
    return header.frame.marker in _PROGRESSIVE or header.first_scan.end - header.first_scan.payload != 4 + 2 * len(
        header.frame.components
    )


def check_scans(image_bytes: bytes, header: Header) -> None:
    """Check that the scans are few enough to be decoded in bounded time, and that together they hold every coefficient.

    libjpeg says nothing of a progressive JPEG that was cut between two scans: it shows what the first ones hold.

    Raises:
        ImageError: `too_large` or `corrupt`.
    """
    frame = header.frame
    missing = np.ones((256, COEFFICIENTS), dtype=bool)
    missing[[number for number in range(256) if number not in frame.components]] = False
    scans = 0
    for segment in _segments(image_bytes):
        if segment.marker != SOS:
            continue
        scans += 1
        if scans > MAX_SCANS or scans * frame.width * frame.height > MAX_SCANNED:
            raise ImageError(
                Status.TOO_LARGE, f"a JPEG of {frame.width}x{frame.height} pixels in {scans} scans or more"
            )
        payload = image_bytes[segment.payload : segment.end]
        count = payload[0] if payload else 0
        if len(payload) != 4 + 2 * count:
            raise corrupt("a scan header of the JPEG is damaged")
        start, end, bits = payload[-3:] if frame.marker in _PROGRESSIVE else (0, COEFFICIENTS - 1, 0)
        for component in payload[1 : 1 + 2 * count : 2]:
            missing[component, start : end + 1] = bits & 0x0F > 0
    if missing.any():
        raise corrupt("the JPEG ends before its last scan")


def without_ornaments(image_bytes: bytes, header: Header) -> bytes:
    """Rewrite a JPEG without what decides no pixel: bytes between segments, profiles, comments, previews and what follows the end.

    Two segments that decide the colour space stay, without values that libjpeg warns about. An end marker is added if there is none.
    """
    pieces = [image_bytes[:2]]
    for segment, data_end in _with_data(image_bytes):
        piece = bytearray(image_bytes[segment.start : segment.end])
        body = segment.payload - segment.start
        if segment.marker == APP0 and piece[body:].startswith(b"JFIF\0") and len(piece) > body + 5:
            piece[body + 5] = 1  # its version
        elif segment.marker == APP14 and piece[body:].startswith(b"Adobe") and len(piece) > body + 11:
            unknown = 1 if len(header.frame.components) == 3 else 2
            piece[body + 11] = piece[body + 11] if piece[body + 11] in (0, 1, 2) else unknown
        elif APP0 <= segment.marker <= 0xEF or segment.marker == COM:
            continue
        pieces.append(bytes(piece))
        if segment.marker == SOS:
            pieces.append(image_bytes[segment.end : data_end])
    return b"".join((*pieces, b"\xff\xd9"))


def _with_data(image_bytes: bytes) -> Iterator[tuple[Segment, int]]:
    """Give each segment up to the end marker, with the place where the next one starts."""
    before: Segment | None = None
    try:
        for segment in _segments(image_bytes):
            if before is not None:
                yield before, segment.start
            before = segment
            if segment.marker == END:
                return
    except ImageError:  # it ends inside a segment
        pass
    if before is not None:
        yield before, len(image_bytes)


def without_bytes_before(image_bytes: bytes, count: int, marker: int) -> Iterator[bytes]:
    """Drop `count` bytes before a marker of this kind: a variant for each place where they may be."""
    for segment in _segments(image_bytes):
        if segment.marker == marker and segment.start > count:
            yield image_bytes[: segment.start - count] + image_bytes[segment.start :]

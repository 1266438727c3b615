"""The directories of a TIFF: the tags that decide how its pixels are stored."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mlcls_ray.images.decoded import corrupt

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF, little-endian and big-endian."""
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANAR = 273, 274, 277, 278, 279, 284
COLOR_MAP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS, SUB_DIRECTORIES = 320, 322, 323, 324, 325, 330
EXTRA, SAMPLE_FORMAT, JPEG_TABLES, DNG_VERSION = 338, 339, 347, 50706
SENSORS = (32803, 34892)
"""Photometric interpretations of a sensor's pixels: behind a colour filter array, and without one."""
MAX_INSIDE = 8
"""Pages inside a page that are looked at."""
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}
"""The whole numbers among TIFF's types, as `struct` calls them."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MAX_VALUES = 1 << 18
"""Values that are read of one tag: a colour map of 16 bits has 196,608."""


class Entry(NamedTuple):
    """A tag: its type, its number of values (`length`), and where they are (`place`)."""

    kind: int
    length: int
    place: int


class Directory:
    """One directory (IFD), which describes one page."""

    def __init__(self, image_bytes: bytes, offset: int, order: str, is_big: bool) -> None:
        self.image_bytes, self.offset, self.order, self.is_big = image_bytes, offset, order, is_big
        count_kind, entry_size, inline = ("Q", 20, 8) if is_big else ("H", 12, 4)
        entry_format, offset_kind = (order + "HHQ", order + "Q") if is_big else (order + "HHI", order + "I")
        self.entries: dict[int, Entry] = {}
        try:
            (entries,) = struct.unpack_from(order + count_kind, image_bytes, offset)
            start = offset + struct.calcsize(count_kind)
            for place in range(start, start + min(entries, 0xFFFF) * entry_size, entry_size):
                tag, kind, count = struct.unpack_from(entry_format, image_bytes, place)
                values = place + entry_size - inline
                if _SIZES.get(kind, 1) * count > inline:
                    (values,) = struct.unpack_from(offset_kind, image_bytes, values)
                self.entries.setdefault(tag, Entry(kind, count, values))
            (self.next,) = struct.unpack_from(offset_kind, image_bytes, start + entries * entry_size)
        except struct.error:
            if WIDTH not in self.entries:
                raise corrupt("the TIFF ends inside a directory") from None
            self.next = 0  # it ends right behind its last directory, which names no next one

    def values(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The whole numbers of a tag."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _TYPES:
            return default
        count = min(entry.length, _MAX_VALUES)
        try:
            values = struct.unpack_from(f"{self.order}{count}{_TYPES[entry.kind]}", self.image_bytes, entry.place)
        except struct.error:
            raise corrupt(f"the TIFF's tag {tag} lies beyond its end") from None
        return values or default

    def value(self, tag: int, default: int = 0) -> int:
        """The first whole number of a tag."""
        return self.values(tag, (default,))[0]

    def blob(self, tag: int) -> bytes:
        """The values of a tag of single bytes; empty if there is no such tag."""
        return self.raw(tag) if tag in self.entries else b""

    def raw(self, tag: int) -> bytes:
        """The bytes of a tag's values."""
        entry = self.entries[tag]
        return self.image_bytes[entry.place : entry.place + _SIZES.get(entry.kind, 1) * entry.length]

    def chunks(self) -> Iterator[bytes]:
        """The bytes of each strip or tile."""
        places = self.values(STRIP_OFFSETS) or self.values(TILE_OFFSETS)
        sizes = self.values(STRIP_COUNTS) or self.values(TILE_COUNTS)
        for place, size in zip(places, sizes, strict=False):
            yield self.image_bytes[place : place + size]

    @property
    def data_end(self) -> int:
        """The place where the last byte of the strips or tiles would be, by their offsets and sizes; 0 if a tag of them is missing."""
        places = self.values(STRIP_OFFSETS) or self.values(TILE_OFFSETS)
        sizes = self.values(STRIP_COUNTS) or self.values(TILE_COUNTS)
        if not places or len(places) != len(sizes):
            return 0
        return int((np.asarray(places, np.uint64) + np.asarray(sizes, np.uint64)).max())

    @property
    def data_size(self) -> int:
        """The bytes in all strips or tiles; 0 if a tag of them is missing."""
        return sum(self.values(STRIP_COUNTS) or self.values(TILE_COUNTS))


def read_directories(image_bytes: bytes, max_pages: int) -> Iterator[Directory]:
    """Read the directories one at a time. Each is read once, although they may form a circle.

    Raises:
        ImageError: `corrupt`.
    """
    order = "<" if image_bytes[:2] == b"II" else ">"
    is_big = image_bytes[2:4] in (b"+\0", b"\0+")
    try:
        (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), image_bytes, 8 if is_big else 4)
    except struct.error:
        raise corrupt("the TIFF ends inside its header") from None
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < max_pages:
        seen.add(offset)
        directory = Directory(image_bytes, offset, order, is_big)
        yield directory
        offset = directory.next
    if not seen:
        raise corrupt("a TIFF without a page")


def is_sensors(directory: Directory) -> bool:
    """Tell whether a page is camera RAW: it is a DNG, or it or a page inside it holds a sensor's pixels.

    Raises:
        ImageError: `corrupt`.
    """
    inside = [
        Directory(directory.image_bytes, offset, directory.order, directory.is_big)
        for offset in directory.values(SUB_DIRECTORIES)[:MAX_INSIDE]
    ]
    return DNG_VERSION in directory.entries or any(page.value(PHOTOMETRIC) in SENSORS for page in (directory, *inside))


def start_at(directory: Directory) -> bytes | bytearray:
    """Make `directory` the file's first one: in a copy, unless it is."""
    is_big = directory.image_bytes[2:4] in (b"+\0", b"\0+")
    place, kind = (8, directory.order + "Q") if is_big else (4, directory.order + "I")
    if struct.unpack_from(kind, directory.image_bytes, place)[0] == directory.offset:
        return directory.image_bytes
    copy = bytearray(directory.image_bytes)
    struct.pack_into(kind, copy, place, directory.offset)
    return copy


def without_orientation(directory: Directory) -> bytes | bytearray:
    """Make `directory` the file's first one, and let it say nothing of an orientation."""
    image_bytes = start_at(directory)
    entry = directory.entries.get(ORIENTATION)
    if entry is None or entry.kind not in _TYPES or directory.value(ORIENTATION) == 1:
        return image_bytes
    copy = bytearray(image_bytes)
    struct.pack_into(directory.order + _TYPES[entry.kind], copy, entry.place, 1)
    return copy


NAMES_OF_COMPRESSIONS: Mapping[int, str] = {
    262: "Kodak", 32766: "NeXT", 32809: "ThunderScan", 32908: "Pixar film", 32909: "Pixar log", 33003: "JPEG 2000", 33005: "JPEG 2000",
    34661: "JBIG", 34676: "SGI log", 34677: "SGI log 24", 34712: "JPEG 2000", 34713: "Nikon NEF", 34887: "LERC", 34892: "lossy JPEG (DNG)",
    34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL", 34925: "LZMA",
}  # fmt: skip

"""The items of a HEIF file: which bytes its primary picture is made of, and whether some of them are missing.

Boxes are those of ISO/IEC 14496-12 (8.11) and 23008-12. HEVC data can hold no run of zeros: "emulation prevention" (ITU-T H.265, 7.3.1.1)
breaks it. So a run of them is what a broken download or a damaged disk left in the place of pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlcls_ray.images.boxes import Box, read_boxes
from mlcls_ray.images.decoded import corrupt

MAX_ITEMS = 4096
"""Items that are looked at. A picture of 200 million pixels has some 800 tiles."""
_HOLE = bytes(8)
"""No more than three zeros can stand together, those of a length."""
_IN_FILE, _IN_IDAT = 0, 1
"""Construction methods: where an item's offsets count from."""


class _Extent(NamedTuple):
    item: int
    start: int
    end: int


def is_sequence(image_bytes: bytes) -> bool:
    """Tell whether a file is an image sequence only: a track, as in a video, and no picture of its own.

    Raises:
        ImageError: `corrupt`: it is cut, for one.
    """
    kinds = {box.kind for box in read_boxes(image_bytes)}
    return b"moov" in kinds and b"meta" not in kinds


def check_items(image_bytes: bytes) -> None:
    """Refuse a file whose primary picture, or a tile of it, lies beyond the end or has a hole of zeros.

    Raises:
        ImageError: `corrupt`.
    """
    meta = next((box for box in read_boxes(image_bytes) if box.kind == b"meta"), None)
    if meta is None:
        raise corrupt("a HEIF file without a directory")
    try:
        parts = {box.kind: box for box in read_boxes(image_bytes, meta.start + 4, meta.end)}
        wanted = _items_of_primary(image_bytes, parts)
        hevc = _items_of_kind(image_bytes, parts[b"iinf"], b"hvc1")
        for extent in _extents(image_bytes, parts):
            if extent.item not in wanted:
                continue
            if extent.end > len(image_bytes):
                raise corrupt("the HEIF file ends inside its picture")
            if extent.item in hevc and image_bytes.find(_HOLE, extent.start, extent.end) >= 0:
                raise corrupt("zeros stand in the place of a part of the HEIF file's picture")
    except (struct.error, KeyError):
        raise corrupt("the HEIF file's directory is damaged") from None


def _items_of_primary(image_bytes: bytes, parts: Mapping[bytes, Box]) -> set[int]:
    """The primary item, and the tiles that it is put together of."""
    box = parts[b"pitm"]
    (primary,) = struct.unpack_from(">I" if image_bytes[box.start] else ">H", image_bytes, box.start + 4)
    tiles = _references(image_bytes, parts[b"iref"]) if b"iref" in parts else {}
    items: set[int] = set()
    waiting = [primary]
    while waiting and len(items) < MAX_ITEMS:
        item = waiting.pop()
        if item not in items:
            items.add(item)
            waiting += tiles.get(item, ())
    return items


def _references(image_bytes: bytes, iref: Box) -> dict[int, tuple[int, ...]]:
    """The items that each derived item is made of."""
    size, kind = (4, "I") if image_bytes[iref.start] else (2, "H")
    found: dict[int, tuple[int, ...]] = {}
    for box in read_boxes(image_bytes, iref.start + 4, iref.end):
        if box.kind == b"dimg":
            item, count = struct.unpack_from(f">{kind}H", image_bytes, box.start)
            found[item] = struct.unpack_from(f">{count}{kind}", image_bytes, box.start + size + 2)
    return found


def _items_of_kind(image_bytes: bytes, iinf: Box, kind: bytes) -> set[int]:
    """The items with a four-letter kind."""
    first = iinf.start + (8 if image_bytes[iinf.start] else 6)
    items = set()
    for box in read_boxes(image_bytes, first, iinf.end):
        item, _, found = struct.unpack_from(
            ">IH4s" if image_bytes[box.start] >= 3 else ">HH4s", image_bytes, box.start + 4
        )
        if found == kind:
            items.add(item)
    return items


def _extents(image_bytes: bytes, parts: Mapping[bytes, Box]) -> Iterator[_Extent]:
    """The places of all items, as the box `iloc` lists them."""
    place = parts[b"iloc"].start
    version, sizes = image_bytes[place], struct.unpack_from(">H", image_bytes, place + 4)[0]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    index_size = index_size if version else 0
    place += 6

    def read(size: int) -> int:
        nonlocal place
        if place + size > parts[b"iloc"].end:
            raise struct.error
        place += size
        return int.from_bytes(image_bytes[place - size : place], "big")

    for _ in range(min(read(4 if version == 2 else 2), MAX_ITEMS)):
        item = read(4 if version == 2 else 2)
        method = read(2) & 15 if version else _IN_FILE
        read(2)
        base = read(base_size)
        for _ in range(read(2)):
            read(index_size)
            start, length = base + read(offset_size), read(length_size)
            if method == _IN_IDAT:
                start += parts[b"idat"].start
            if method in (_IN_FILE, _IN_IDAT):
                yield _Extent(item, start, start + length if length else len(image_bytes))

"""The pages of a TIFF: count them, and take one out as a TIFF of its own, without the bytes of the others."""

from __future__ import annotations

import struct
from mmap import mmap
from typing import cast

from mlcls_ray.images import tiff_tags as tags
from mlcls_ray.images.decoded import MAX_PAGES, check_page
from mlcls_ray.images.tiff_tags import Directory, is_sensors, read_directories, start_at

_SUBFILE, _OLD_JPEG = 254, 6
_SMALLER, _MASK = 1, 4
"""Bits of the tag NewSubfileType: a smaller version of another page, and a mask of one."""
_POINTERS = {tags.SUB_DIRECTORIES, 34665, 34853, 40965}
"""Tags that point to further directories (pages inside, EXIF, GPS), which no pixel needs."""
_DATA = {tags.STRIP_OFFSETS: tags.STRIP_COUNTS, tags.TILE_OFFSETS: tags.TILE_COUNTS}


def number_pages(document: bytes | mmap) -> list[int]:
    """Number the pages by their directories, without those that are a smaller version or a mask of another page, or camera RAW.

    Raises:
        ImageError: `corrupt`.
    """
    directories = enumerate(read_directories(cast("bytes", document), MAX_PAGES + 1), 1)
    return [
        number
        for number, page in directories
        if number == 1 or not (page.value(_SUBFILE) & (_SMALLER | _MASK) or is_sensors(page))
    ]


def take_page(document: bytes, number: int) -> bytes:
    """Write a page as a TIFF of its own.

    Raises:
        ImageError: `missing`, `too_large` or `corrupt`.
    """
    found = 0
    for found, page in enumerate(read_directories(document, min(number, MAX_PAGES)), 1):
        if found == number:
            return _alone(page)
    check_page(number, found)
    raise AssertionError  # it has this page


def _alone(page: Directory) -> bytes:
    """Copy a page's tags and data. A page whose data are not in strips or tiles, or overlap, keeps the whole document around it."""
    offsets = next((tag for tag in _DATA if tag in page.entries), None)
    is_simple = offsets is not None and page.value(tags.COMPRESSION, 1) != _OLD_JPEG
    if (
        offsets is None
        or not is_simple
        or not 0 < page.data_size <= len(page.image_bytes)
        or not _is_listed(page, offsets)
    ):
        return bytes(start_at(page))
    big = page.is_big
    pointer, inline = ("Q", 8) if big else ("I", 4)
    header = page.image_bytes[: 8 if big else 4]
    out = bytearray(header + bytes(inline))
    places = []
    for chunk in page.chunks():
        places.append(len(out))
        out += chunk + bytes(len(chunk) % 2)
    fields = []
    for tag in sorted(page.entries.keys() - _POINTERS):
        kind, count, values = page.entries[tag].kind, page.entries[tag].length, page.raw(tag)
        if tag == offsets:
            kind, count, values = (
                (16 if big else 4),
                len(places),
                struct.pack(f"{page.order}{len(places)}{pointer}", *places),
            )
        if len(values) > inline:
            place, length = len(out), len(values)
            out += values + bytes(length % 2)
            values = struct.pack(page.order + pointer, place)
        fields.append(struct.pack(page.order + "HH" + pointer, tag, kind, count) + values.ljust(inline, b"\0"))
    struct.pack_into(page.order + pointer, out, 8 if big else 4, len(out))
    out += struct.pack(page.order + ("Q" if big else "H"), len(fields)) + b"".join(fields) + bytes(inline)
    return bytes(out)


def _is_listed(page: Directory, offsets: int) -> bool:
    """Tell whether each strip or tile is read, and lies within the document: what does not must be seen by the decoder."""
    places, sizes = page.values(offsets), page.values(_DATA[offsets])
    return len(places) == len(sizes) == page.entries[offsets].length and page.data_end <= len(page.image_bytes)

"""The boxes of the ISO base media format, in which HEIC, JPEG XL and JPEG 2000 files are written."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from mlcls_ray.images.decoded import corrupt

MAX_BOXES = 10_000
"""Boxes that are read on one level of a file."""


class Box(NamedTuple):
    """A box: its four letters, and where its payload starts and ends in the file."""

    kind: bytes
    start: int
    end: int


def read_boxes(image_bytes: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Read the boxes of one level: of the file, or of the payload of a box. A box of size 0 reaches to the end.

    Raises:
        ImageError: `corrupt`: a box reaches beyond the end, or there are more than `MAX_BOXES`.
    """
    end = len(image_bytes) if end is None else end
    for _ in range(MAX_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", image_bytes, start)
        header = 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", image_bytes, start + 8)
            header = 16
        elif size == 0:
            size = end - start
        if size < header or start + size > end:
            raise corrupt(f"its part {kind.decode('latin-1')!r} reaches beyond the end")
        yield Box(kind, start + header, start + size)
        start += size
    raise corrupt(f"it has more than {MAX_BOXES} parts")


def brands_of(head: bytes) -> tuple[bytes, frozenset[bytes]] | None:
    """The major brand and all brands of the box `ftyp` that a file starts with; None if it starts otherwise."""
    if head[4:8] != b"ftyp":
        return None
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return head[8:12], frozenset((head[8:12], *(head[place : place + 4] for place in range(16, size - 3, 4))))

"""Zip archives: `photos.zip#2024/a.jpg`. Zip64 is read too; encrypted members become rows of status `unsupported`.

The directory at the archive's end is read as a stream, because `zipfile` keeps all of it in memory. A member is then one
range: its local header, which says how it is compressed, and its data.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from typing import IO
from zipfile import BadZipFile

import fsspec

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.storage.fetched import too_large
from mlcls_ray.storage.inputs.containers import Archive, DamagedError, read_range
from mlcls_ray.storage.uris import Place

# The records of a zip file, as PKWARE's APPNOTE.TXT has them: 4.3.16, 4.3.15, 4.3.14, 4.3.12, 4.3.7.
END = struct.Struct("<4s4H2LH")
END64_LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL_HEADER = struct.Struct("<4s5H3L2H")

IS_ENCRYPTED, HAS_DESCRIPTOR, IS_UTF8 = 1 << 0, 1 << 3, 1 << 11
STORED, DEFLATED = 0, 8
IN_ZIP64 = 0xFFFF_FFFF
"""Stands for a number that is in the zip64 extra field."""
ZIP64_FIELD = 1
LONGEST_COMMENT = 0xFFFF
HEADER_ROOM = 512
"""Bytes that a local header usually has at most, with the name and the extra fields."""
READ_AHEAD = 8 << 20
UNIX = 3
LINK = Place(2, 0)
"""The place that stands for a symbolic link, as in tar archives. A member's header cannot begin here: what is in front has no such size."""


class ZipArchive(Archive):
    """A zip archive. A place is where a member's local header begins, and the size of its compressed data."""

    suffixes = (".zip",)

    def list_files(self, filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[tuple[str, int, Place]]:
        """Read the directory only."""
        try:
            with filesystem.open(path, "rb", block_size=READ_AHEAD) as stream:
                yield from _read_directory(stream)
        except (BadZipFile, struct.error) as error:
            raise DamagedError(f"archive '{path}' cannot be read: {error}") from None

    def read_place(self, filesystem: fsspec.AbstractFileSystem, path: str, place: Place, max_bytes: int) -> bytes:
        if place == LINK:
            raise ImageError(
                Status.UNSUPPORTED, "a link in the archive, which is not followed; pack by zip without --symlinks"
            )
        longest = max_bytes + max_bytes // 1000 + 1024  # deflate makes random bytes a little longer
        if place.size > longest:
            raise too_large(place.size, max_bytes)
        data = bytes(filesystem.cat_file(path, start=place.at, end=place.at + HEADER_ROOM + place.size))
        if len(data) < LOCAL_HEADER.size or not data.startswith(b"PK\3\4"):
            raise ImageError(Status.CORRUPT, "the archive has no member at this place")
        _, _, flags, method, _, _, checksum, _, size, name_bytes, extra_bytes = LOCAL_HEADER.unpack_from(data)
        if flags & IS_ENCRYPTED:
            raise ImageError(Status.UNSUPPORTED, "the member is encrypted")
        if method not in (STORED, DEFLATED):
            raise ImageError(Status.UNSUPPORTED, f"compression method {method}; only stored and deflated are read")
        is_declared = not flags & HAS_DESCRIPTOR  # else size and checksum follow the data, and may be 0 here
        if is_declared and max_bytes < size != IN_ZIP64:
            raise too_large(size, max_bytes)
        start = LOCAL_HEADER.size + name_bytes + extra_bytes
        if len(data) >= start + place.size:
            data = data[start : start + place.size]
        else:  # a long header; or the archive ends here
            data = read_range(filesystem, path, Place(place.at + start, place.size), longest)
        image_bytes = data if method == STORED else _inflate(data, max_bytes)
        if len(image_bytes) > max_bytes:
            raise too_large(len(image_bytes), max_bytes)
        if is_declared and zlib.crc32(image_bytes) != checksum:
            raise ImageError(Status.CORRUPT, "the member's checksum is wrong")
        return image_bytes


def _inflate(data: bytes, max_bytes: int) -> bytes:
    """Inflate to at most `max_bytes`, whatever the archive declares."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        image_bytes = inflater.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise ImageError(Status.CORRUPT, f"the member's data is damaged: {error}") from None
    if len(image_bytes) > max_bytes:
        raise too_large(None, max_bytes)
    if not inflater.eof:
        raise ImageError(Status.CORRUPT, "the member's data is cut")
    return image_bytes


def _read_directory(stream: IO[bytes]) -> Iterator[tuple[str, int, Place]]:
    """Yield name, inflated size and place of each file.

    Raises:
        BadZipFile, struct.error: the directory is missing or damaged.
    """
    start, end, shift = _find_directory(stream)
    stream.seek(start)
    position = start
    while position < end:
        entry = ENTRY.unpack(stream.read(ENTRY.size))
        signature, made_by, _, flags, _, _, _, _, packed_size, size, name_bytes, extra_bytes, comment_bytes = entry[:13]
        if signature != b"PK\1\2":
            raise BadZipFile("its directory is damaged")
        name, extra = stream.read(name_bytes), stream.read(extra_bytes)
        stream.read(comment_bytes)
        position += ENTRY.size + name_bytes + extra_bytes + comment_bytes
        size, packed_size, offset = _large_numbers(extra, size, packed_size, entry[-1])
        text = name.decode("utf-8", "surrogateescape") if flags & IS_UTF8 else name.decode("cp437")
        is_link = made_by >> 8 == UNIX and stat.S_ISLNK(entry[-2] >> 16)
        yield text, size, LINK if is_link else Place(offset + shift, packed_size)


def _find_directory(stream: IO[bytes]) -> tuple[int, int, int]:
    """Return where the directory starts and ends, and by how much all offsets are too small.

    They are if something is in front of the archive, such as the program of a self-extracting one.
    """
    file_size = stream.seek(0, 2)
    tail_start = max(0, file_size - LONGEST_COMMENT - END.size - END64_LOCATOR.size - END64.size)
    stream.seek(tail_start)
    tail = stream.read(file_size - tail_start)
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end < END.size:
        raise BadZipFile("it is no zip file, or it is cut")
    _, disk, first_disk, _, _, size, offset, _ = END.unpack_from(tail, end)
    end64 = end - END64_LOCATOR.size - END64.size
    if end64 >= 0 and tail[end64:].startswith(b"PK\6\6") and tail[end64 + END64.size :].startswith(b"PK\6\7"):
        _, _, _, _, disk, first_disk, _, _, size, offset = END64.unpack_from(tail, end64)
        end = end64
    if disk or first_disk:
        raise BadZipFile("it is one of several parts")
    start = tail_start + end - size
    if offset > start:
        raise BadZipFile("its directory is damaged")
    stream.seek(0)
    if start > offset and stream.read(4) == b"PK\3\4":
        raise BadZipFile("another zip file is in front of it, whose files it does not name")
    return start, start + size, start - offset


def _large_numbers(extra: bytes, size: int, packed_size: int, offset: int) -> tuple[int, int, int]:
    """Replace what does not fit into 32 bits by the numbers of the zip64 extra field."""
    numbers: list[int] = []
    while len(extra) >= 4:
        field, length = struct.unpack_from("<2H", extra)
        if field == ZIP64_FIELD:
            numbers = [number for (number,) in struct.iter_unpack("<Q", extra[4 : 4 + length // 8 * 8])]
            break
        extra = extra[4 + length :]
    values = [numbers.pop(0) if value == IN_ZIP64 and numbers else value for value in (size, packed_size, offset)]
    return values[0], values[1], values[2]

"""Tar archives (webdataset shards): `shard-000.tar#0001.jpg`."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import IO

import fsspec

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.storage.inputs.base import has_suffix
from mlcls_ray.storage.inputs.containers import DAMAGE, Archive, DamagedError, read_range
from mlcls_ray.storage.uris import HTTP, Place, scheme_of

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
READ_AHEAD = 8 << 20
BLOCK = tarfile.BLOCKSIZE
MAGIC = slice(257, 262)
SPARSE, LINK, DEVICE = 1, 2, 3
NOT_STORED = {
    SPARSE: "a sparse file in the archive; pack it by tar without --sparse",
    LINK: "a link in the archive, which is not followed; pack by tar --dereference --hard-dereference",
    DEVICE: "not a regular file",
}
"""Places that stand for members without bytes of their own. The bytes of a file begin behind its header, never here."""


class TarArchive(Archive):
    """An uncompressed tar archive. A place is where a member's bytes are."""

    suffixes = (".tar",)

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        if super().takes(text, s3, uri_column):
            return True
        if scheme_of(text) not in HTTP and has_suffix(text, COMPRESSED, s3):
            raise UsageError(
                f"input '{text}': members of a compressed archive cannot be read one by one; pack it as .tar"
            )
        return False

    def list_files(self, filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[tuple[str, int, Place]]:
        """Read the archive once, from front to back. The headers are between the members, so on S3 all of it is transferred.

        Archives that were concatenated are read on. Links, sparse files and devices are listed: reading them says what they are.
        """
        end = 0
        try:
            with filesystem.open(path, "rb", block_size=READ_AHEAD) as stream:
                size = stream.seek(0, os.SEEK_END)
                start: int | None = 0
                while start is not None:
                    stream.seek(start)
                    for member in _headers(stream):
                        end = member.offset_data
                        if not member.isdir():
                            yield member.name, member.size, _place(member)
                        end += -(-member.size // BLOCK) * BLOCK if member.isreg() else 0
                    start, end = _next_archive(stream, max(start, min(end, size)), size)
                if end < size:
                    yield DAMAGE, 0, Place(end, 0)
        except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
            if end:  # what comes before is listed
                yield DAMAGE, 0, Place(end, 0)
                return
            raise DamagedError(f"archive '{path}' cannot be read: {error}") from None

    def read_place(self, filesystem: fsspec.AbstractFileSystem, path: str, place: Place, max_bytes: int) -> bytes:
        if place.at in NOT_STORED and not place.size:
            raise ImageError(Status.UNSUPPORTED, NOT_STORED[place.at])
        return read_range(filesystem, path, place, max_bytes)


def _headers(stream: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the members of the archive that begins here, up to its end mark, or to what is no header."""
    archive = tarfile.TarFile(fileobj=stream, mode="r")
    offset = -1
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # else it keeps every header in memory
        if member.offset <= offset:
            raise tarfile.ReadError("a header with a negative size")
        offset = member.offset
        yield member


def _place(member: tarfile.TarInfo) -> Place:
    if member.issparse():
        return Place(SPARSE, 0)
    if member.issym() or member.islnk():
        return Place(LINK, 0)
    return Place(member.offset_data, member.size) if member.isreg() else Place(DEVICE, 0)


def _next_archive(stream: IO[bytes], at: int, size: int) -> tuple[int | None, int]:
    """Look behind the members of an archive.

    Returns where another archive begins, and None at the end; and where the damage begins, which is the size of the file if there is none.
    Other bytes behind an end mark are left out, as `tar` does.
    """
    stream.seek(at)
    has_ended = False
    while block := stream.read(BLOCK):
        if block.strip(b"\0"):
            break
        has_ended = True
        at += len(block)
    if not block:
        return None, size
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        is_header = block[MAGIC].startswith(b"ustar")
        return None, size if has_ended and not is_header else at
    return (at, size) if has_ended else (None, at)

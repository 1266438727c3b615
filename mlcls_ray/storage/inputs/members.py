"""Images inside other files: members of tar shards (webdataset), and rows of Parquet files with image bytes (Hugging Face data sets).

A member's uri is its container's with a fragment: `shard-000.tar#0001.jpg`, `train.parquet#image/17` (column and row). In the manifest
a tar member also says where it lies (`?at=1536&size=48231`), so that a worker reads just these bytes, from a disk or an object store,
and opens no archive. Nothing is ever unpacked: a member's name is a name only.
"""

from __future__ import annotations

import os
import re
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.errors import ImageError, Status, UsageError

MEMBER = re.compile(
    r"(?P<container>.+\.(?P<kind>tar|parquet))#(?P<name>[^#?]+)(?:\?at=(?P<at>\d{1,18})&size=(?P<size>\d{1,18}))?",
    re.IGNORECASE,
)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
IMAGE_COLUMNS = ("image", "jpg", "image_bytes", "bytes", "img", "png", "webp")
"""Where image bytes are looked for, in this order."""
KEPT_GROUPS = 2
"""Row groups that a worker holds: its rows come in order."""
MAX_GROUP_BYTES = 4 << 30
READ_AHEAD = 8 << 20


class Member(NamedTuple):
    """A parsed member uri; `at` and `size` are -1 where it does not say where it lies."""

    container: str
    kind: str
    name: str
    at: int
    size: int


class Listed(NamedTuple):
    """A member as a listing finds it."""

    fragment: str
    size_bytes: int | None


def parse_member(uri: str) -> Member | None:
    """The parts of a member's uri; None for any other."""
    match = MEMBER.fullmatch(uri)
    if match is None:
        return None
    at, size = (int(match[name]) if match[name] else -1 for name in ("at", "size"))
    return Member(match["container"], match["kind"].lower(), match["name"], at, size)


def is_archive(text: str) -> bool:
    """Whether an input is a tar file, by its suffix.

    Raises:
        UsageError: a compressed one.
    """
    lowered = text.lower()
    if lowered.endswith(COMPRESSED):
        raise UsageError(f"input '{text}': members of a compressed archive cannot be read one by one; pack it as .tar")
    return lowered.endswith(".tar")


def list_tar(
    filesystem: fsspec.AbstractFileSystem, path: str, suffixes: frozenset[str] | None = None
) -> Iterator[Listed]:
    """The images of an archive (by their `suffixes`; None: every file) in its own order.

    Reads the archive once, front to back (an object store's whole: headers lie between the members).

    Raises:
        UsageError: it is no tar file, or ends in the middle of a member's header.
    """
    try:
        with (
            filesystem.open(path, "rb", block_size=READ_AHEAD) as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                if member.isreg() and not member.issparse() and _is_taken(member.name, suffixes):
                    quoted = quote(member.name, safe="/ ", errors="surrogateescape")
                    yield Listed(f"{quoted}?at={member.offset_data}&size={member.size}", member.size)
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"archive '{path}' cannot be read: {error}") from None


def _is_taken(name: str, suffixes: frozenset[str] | None) -> bool:
    base = name.rpartition("/")[2]
    return suffixes is None or (not base.startswith(".") and os.path.splitext(base)[1].lower() in suffixes)


def image_column(filesystem: fsspec.AbstractFileSystem, path: str, asked: str | None) -> str | None:
    """The column of a Parquet file that holds image bytes (binary, or Hugging Face's struct with `bytes`); None where there is none."""
    with filesystem.open(path, "rb") as stream:
        found = pq.read_schema(stream)
    names = [field.name for field in found if _holds_bytes(field.type)]
    if asked:
        return asked if asked in names else None
    return next((name for name in IMAGE_COLUMNS if name in names), names[0] if len(names) == 1 else None)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def list_parquet(filesystem: fsspec.AbstractFileSystem, path: str, column: str) -> Iterator[Listed]:
    """A Parquet file's rows; only its footer is read."""
    with filesystem.open(path, "rb") as stream:
        rows = pq.ParquetFile(stream).metadata.num_rows
    yield from (Listed(f"{column}/{row}", None) for row in range(rows))


class MemberReader:
    """Reads members; keeps what the next one of the same file will need. Its methods may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: OrderedDict[str, dict[str, tuple[int, int]]] = OrderedDict()
        self._groups: OrderedDict[tuple[str, str, int], pa.Array] = OrderedDict()
        self._footers: OrderedDict[str, list[int]] = OrderedDict()

    def read(self, filesystem: fsspec.AbstractFileSystem, path: str, member: Member, max_bytes: int) -> bytes:
        """A member's bytes.

        Raises:
            ImageError: `missing` (no such member), `too_large` or `corrupt` (the container).
            OSError and others: what the filesystem raises.
        """
        if member.kind == "parquet":
            return self._row(filesystem, path, member, max_bytes)
        at, size = (member.at, member.size) if member.at >= 0 else self._place(filesystem, path, member.name)
        if size > max_bytes:
            raise ImageError(Status.TOO_LARGE, f"{size} bytes; the limit is {max_bytes} (max_bytes)")
        data = bytes(filesystem.cat_file(path, start=at, end=at + size)) if size else b""
        if len(data) < size:
            raise ImageError(Status.CORRUPT, f"the archive ends {size - len(data)} bytes before its member does")
        return data

    def _place(self, filesystem: fsspec.AbstractFileSystem, path: str, name: str) -> tuple[int, int]:
        """Where a member lies, for a uri of the label table: the archive's headers are read once."""
        with self._lock:
            if path not in self._places:
                listed = [parse_member(f"x.tar#{one.fragment}") for one in list_tar(filesystem, path)]
                self._places[path] = {one.name: (one.at, one.size) for one in listed if one}
                _forget(self._places)
            place = self._places[path].get(name)
        if place is None:
            raise ImageError(Status.MISSING, f"the archive has no member '{name}'")
        return place

    def _row(self, filesystem: fsspec.AbstractFileSystem, path: str, member: Member, max_bytes: int) -> bytes:
        column, _, number = member.name.rpartition("/")
        if not number.isdecimal():
            raise ImageError(Status.MISSING, f"'{member.name}' is not a column and a row")
        with self._lock:  # one thread reads the row group that all are waiting for
            values, row = self._group(filesystem, path, column, int(number))
        if row >= len(values):
            raise ImageError(Status.MISSING, f"the file has no row {number}")
        value = values[row].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is not None and len(data) > max_bytes:
            raise ImageError(Status.TOO_LARGE, f"{len(data)} bytes; the limit is {max_bytes} (max_bytes)")
        return data or b""

    def _group(self, filesystem: fsspec.AbstractFileSystem, path: str, column: str, row: int) -> tuple[pa.Array, int]:
        """The column of the row group that a row is in, and the row's place there."""
        if path not in self._footers:
            with filesystem.open(path, "rb") as stream:
                metadata = pq.ParquetFile(stream).metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            if any(group.total_byte_size > MAX_GROUP_BYTES for group in groups):
                raise ImageError(Status.TOO_LARGE, f"a row group of more than {MAX_GROUP_BYTES} bytes")
            self._footers[path] = [group.num_rows for group in groups]
            _forget(self._footers)
        for number, rows in enumerate(self._footers[path]):
            if row < rows:
                key = (path, column, number)
                if key not in self._groups:
                    with filesystem.open(path, "rb") as stream:
                        table = pq.ParquetFile(stream).read_row_group(number, columns=[column], use_threads=False)
                    if column not in table.schema.names:
                        raise ImageError(Status.MISSING, f"the file has no column '{column}'")
                    self._groups[key] = table.column(column)
                    _forget(self._groups)
                self._groups.move_to_end(key)
                return self._groups[key], row
            row -= rows
        raise ImageError(Status.MISSING, "the file has no such row")


def _forget(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > KEPT_GROUPS:
        kept.popitem(last=False)

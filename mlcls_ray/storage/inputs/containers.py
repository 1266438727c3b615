"""Files that hold images: tar and zip archives, Parquet files with image bytes.

An image in such a file is a member, and its uri is the file's with the member's name: `shard-000.tar#0001.jpg`. Nothing is
ever unpacked to disk: a member's name is a name only.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

import fsspec
import pyarrow as pa

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.storage.fetched import too_large
from mlcls_ray.storage.inputs.base import (
    InputEntry,
    InputKind,
    cannot_list,
    container_files,
    etag_of,
    has_suffix,
    is_image_name,
    mtime_of,
)
from mlcls_ray.storage.inputs.left_out import LeftOut
from mlcls_ray.storage.uris import (
    HTTP,
    LOCAL,
    MemberUri,
    Place,
    open_filesystem,
    scheme_of,
    uri_of_path,
)

KEPT = 2
"""Containers (or row groups) that a worker remembers: its rows come in the order of the manifest."""

LARGEST = 10**18 - 1
DAMAGE = "\0damage"
"""In place of a file's name, which has no NUL: the archive is damaged from here on."""
_DAMAGE_NAME = re.compile(r"damaged-from-(?P<at>\d{1,18})")


class Member(NamedTuple):
    """A member as its container lists it.

    `name` is percent-encoded, as in the uri. `size_bytes` is the size of the image; `place` is where its bytes are in the
    container. They are None where the container does not tell.
    """

    name: str
    size_bytes: int | None = None
    place: Place | None = None


class DamagedError(UsageError):
    """A container cannot be read at all."""


class Container(InputKind):
    """A file, or a glob of files, with images inside. `read_member` is called from several threads of a worker."""

    suffixes: ClassVar[tuple[str, ...]]
    """Endings of such files' names: a dot and letters or digits, in lower case."""

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        return scheme_of(text) not in HTTP and has_suffix(text, self.suffixes, s3)

    def can_read(self, member: MemberUri) -> bool:
        """Tell by its suffix whether a member's container is of this kind."""
        return member.container.lower().endswith(self.suffixes)

    def list_entries(self, text: str, s3: S3Options, uri_column: str | None, left_out: LeftOut) -> Iterator[InputEntry]:
        """Yield the members. Of several files, one that cannot be read becomes one row that says why; alone, it is an error."""
        filesystem, pattern = open_filesystem(text, s3)
        scheme = scheme_of(text)
        try:
            paths = container_files(filesystem, text, pattern, self.suffixes)
            if not paths:
                raise UsageError(f"input '{text}' matches no file")
            for path in paths:
                if scheme == LOCAL and os.path.isdir(path):  # on the way to others, and not to be entered
                    yield InputEntry(uri_of_path(path))
                    continue
                info = filesystem.info(path)
                # A member changes when its container does.
                etag = etag_of(info) or f"{info['size']:x}-{int(info.get('mtime') or 0):x}"
                uri = uri_of_path(path) if scheme == LOCAL else f"{scheme}://{path}"
                try:
                    for member in self.list_members(filesystem, path, uri_column, left_out):
                        member_uri = MemberUri(uri, member.name, member.place)
                        yield InputEntry(str(member_uri), member.size_bytes, mtime_of(info), etag)
                except (DamagedError, OSError, pa.ArrowException) as error:
                    # Without a number, an OSError is Arrow's, about the file's content; with one, the storage fails.
                    is_storage = isinstance(error, OSError) and error.errno not in (None, errno.EACCES)
                    if len(paths) == 1 or is_storage:
                        raise
                    yield InputEntry(str(MemberUri(uri, damage_name(0))), None, mtime_of(info), etag)
        except (OSError, ValueError) as error:
            raise cannot_list(text, error) from None

    @abstractmethod
    def list_members(
        self, filesystem: fsspec.AbstractFileSystem, path: str, uri_column: str | None, left_out: LeftOut
    ) -> Iterator[Member]:
        """Yield the images of one container, in its own order, without holding them all in memory; count the files that are none.

        Raises:
            DamagedError: the file is not what its suffix says, or is damaged.
            UsageError: it has nothing of what is asked for.
            OSError: it cannot be read.
        """

    @abstractmethod
    def read_member(self, filesystem: fsspec.AbstractFileSystem, path: str, member: MemberUri, max_bytes: int) -> bytes:
        """Read one image. Memory stays within a small multiple of `max_bytes`, whatever the container claims.

        Raises:
            ImageError: `missing` (no such member), `too_large`, `unsupported`, or `corrupt` (the container).
            OSError: the container cannot be read; and what else the filesystem raises.
        """


class Archive(Container):
    """A container whose members are stored one after the other, each at a place.

    The manifest names the place, so that a worker reads one range and opens no archive. A uri from the label table has
    no place; for it the archive's directory is read once and cached.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: OrderedDict[str, dict[str, Place]] = OrderedDict()

    @abstractmethod
    def list_files(self, filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[tuple[str, int, Place]]:
        """Yield name, size in bytes and place of each file in the archive, whatever its suffix.

        Where the archive is damaged behind some files, the last name is `DAMAGE`, at the place where the damage begins.

        Raises:
            DamagedError: the file is no such archive, or its directory is damaged.
        """

    @abstractmethod
    def read_place(self, filesystem: fsspec.AbstractFileSystem, path: str, place: Place, max_bytes: int) -> bytes:
        """Read the file at a place. Raises what `read_member` does."""

    def list_members(
        self, filesystem: fsspec.AbstractFileSystem, path: str, uri_column: str | None, left_out: LeftOut
    ) -> Iterator[Member]:
        for name, size_bytes, place in self.list_files(filesystem, path):
            if name == DAMAGE:
                yield Member(damage_name(place.at))
            elif is_image_name(name):
                place = Place(_bounded(place.at), _bounded(place.size))
                yield Member(quoted_name(name), _bounded(size_bytes), place)
            else:
                left_out.add(name)

    def read_member(self, filesystem: fsspec.AbstractFileSystem, path: str, member: MemberUri, max_bytes: int) -> bytes:
        place = member.place or self._find(filesystem, path, member.name)
        return self.read_place(filesystem, path, place, max_bytes)

    def _find(self, filesystem: fsspec.AbstractFileSystem, path: str, name: str) -> Place:
        with self._lock:  # one thread reads the directory that all are waiting for
            if path not in self._places:
                files = self.list_files(filesystem, path)
                keep_newest(self._places, path, {quoted_name(file): place for file, _, place in files})
            place = self._places[path].get(name)
        if place is None:
            raise ImageError(Status.MISSING, f"the archive has no member '{name}'")
        return place


def damage_name(at: int) -> str:
    """Name the row that stands for the damaged part of a container, from this byte on."""
    return f"damaged-from-{at}"


def read_member(
    container: Container, filesystem: fsspec.AbstractFileSystem, path: str, member: MemberUri, max_bytes: int
) -> bytes:
    """Read one image, or tell what is damaged where the member stands for damage.

    Raises:
        ImageError: see `Container.read_member`.
        OSError, UsageError: the container cannot be read; and what else the filesystem raises.
    """
    damage = _DAMAGE_NAME.fullmatch(member.name)
    if damage is None:
        return container.read_member(filesystem, path, member, max_bytes)
    if damage["at"] == "0":
        try:
            next(iter(container.list_members(filesystem, path, None, LeftOut())), None)  # raises what the listing met
        except OSError as error:
            if error.errno is None:
                raise ImageError(Status.CORRUPT, str(error)) from None
            raise
        raise ImageError(Status.MISSING, "the file could not be read when it was listed; now it can: run again")
    raise ImageError(
        Status.CORRUPT, f"the archive is damaged from byte {damage['at']} on; the images behind it are not listed"
    )


def read_range(filesystem: fsspec.AbstractFileSystem, path: str, place: Place, max_bytes: int) -> bytes:
    """Read the bytes at a place.

    Raises:
        ImageError: `too_large`; or `corrupt`, because the archive ends before.
    """
    if place.size > max_bytes:
        raise too_large(place.size, max_bytes)
    data = bytes(filesystem.cat_file(path, start=place.at, end=place.at + place.size)) if place.size else b""
    if len(data) < place.size:
        raise ImageError(Status.CORRUPT, f"the archive ends {place.size - len(data)} bytes before its member does")
    return data


def keep_newest(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Add a value, and forget all but the newest KEPT of them."""
    kept[key] = value
    while len(kept) > KEPT:
        kept.popitem(last=False)


def _bounded(number: int) -> int:
    """Bound what a damaged archive claims to what fits into the manifest and into a uri; reading it will fail."""
    return max(0, min(number, LARGEST))


def quoted_name(name: str) -> str:
    """Percent-encode a member's name. Bytes that are not UTF-8 are surrogates in `name`, as in Python's paths."""
    return quote(name, safe="/ ", errors="surrogateescape")

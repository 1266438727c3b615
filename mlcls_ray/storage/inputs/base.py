"""The protocol of a kind of input: a folder, an S3 prefix, a list of uris, a tar archive, …

To add a kind (TFRecord, say):
1. Write `storage/inputs/tfrecord.py` with one class. Derive it from
   - `containers.Archive` if images are stored in a file as they are, one after the other, under names (tar, zip);
   - `containers.Container` if images are in a file in some other way: without names, or inside records (Parquet, TFRecord);
   - `uri_list.UriList` if the file only names images (.txt, .csv);
   - `InputKind` otherwise.
2. Add its line to `registry.INPUT_KINDS`, above the kinds that would take the same inputs.
3. Add its test file, and its row to the table of inputs in docs/label.md.
Nothing else lists the kinds. `zip.py` and `jsonl.py` are examples that were added in this way. Members are recognized by the container's
suffix; a kind whose files have other names (`x.tfrecord-00000-of-00010`) also needs a look at `uris.parse_member`.
"""

from __future__ import annotations

import contextlib
import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, short_message
from mlcls_ray.images.decode import SUFFIXES as IMAGE_SUFFIXES
from mlcls_ray.storage.inputs.left_out import LeftOut
from mlcls_ray.storage.inputs.scan import Match, expand_glob
from mlcls_ray.storage.uris import (
    HTTP,
    is_local,
    looks_like_glob,
    open_filesystem,
    path_of_uri,
    redact_url,
    redact_urls,
    scheme_of,
)


class InputEntry(NamedTuple):
    """One image to label. The size in bytes, the mtime in UTC and the etag are None where the listing does not tell them.

    `attempts`: in how many earlier runs this image failed with a transient error.
    """

    uri: str
    size_bytes: int | None = None
    mtime: datetime | None = None
    etag: str | None = None
    attempts: int = 0


class InputKind(ABC):
    """One kind of input. An input is a `text` that the user wrote: a path, a glob or a uri."""

    @abstractmethod
    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        """Tell whether the input is of this kind. The first kind of `registry.INPUT_KINDS` that says yes lists it.

        Raises:
            UsageError: the input is nearly of this kind, and cannot be read by any other.
        """

    @abstractmethod
    def list_entries(self, text: str, s3: S3Options, uri_column: str | None, left_out: LeftOut) -> Iterator[InputEntry]:
        """Yield the images of the input, in an order that is the same each time, without holding them all in memory.

        `uri_column`: the column of a list, or of image bytes, that the user names. `left_out`: counts the files that are no images by
        their names.

        Raises:
            UsageError: the input cannot be listed, or matches nothing.
        """


def has_suffix(text: str, suffixes: tuple[str, ...], s3: S3Options) -> bool:
    """Tell whether an input ends in one of the suffixes (lower case), and is no folder or prefix of that name."""
    return text.lower().endswith(suffixes) and not is_folder(text, s3)


def has_parts(text: str, suffixes: tuple[str, ...], s3: S3Options) -> bool:
    """Tell whether an input is a folder or prefix `x.parquet` with files of that suffix inside, as Spark writes a table or a list."""
    if not text.rstrip("/").lower().endswith(suffixes) or not is_folder(text, s3):
        return False
    filesystem, path = open_filesystem(text, s3)
    return any(name.lower().endswith(suffixes) for name in part_files(filesystem, path, suffixes))


def is_folder(text: str, s3: S3Options) -> bool:
    """Tell whether an input is a folder, or a prefix of objects; not where its file system cannot be asked, which listing it will tell."""
    if scheme_of(text) in HTTP:
        return False
    if is_local(text):
        return os.path.isdir(path_of_uri(text))
    filesystem, path = open_filesystem(text, s3)
    with contextlib.suppress(Exception):  # each package has errors of its own
        return bool(filesystem.isdir(path) and not filesystem.isfile(path))
    return False


def part_files(filesystem: fsspec.AbstractFileSystem, path: str, suffixes: tuple[str, ...]) -> list[str]:
    """List the parts under a folder, sorted. Names that start with "_" or "." are not data, such as `_SUCCESS` and `.part-0.crc`.

    A local folder inside that may not be entered is listed itself: reading it will tell why not.
    """
    root = path.rstrip("/")
    closed: list[str] = []
    if isinstance(filesystem, LocalFileSystem):
        matches = list(expand_glob(f"{glob.escape(root)}/**/*"))
        closed = [match.path for match in matches if match.is_closed]
        names = [match.path for match in matches if os.path.isfile(match.path)]
    else:
        names = filesystem.find(root)
    return sorted([*closed, *(name for name in names if name.lower().endswith(suffixes) and _is_data(name, root))])


def container_files(
    filesystem: fsspec.AbstractFileSystem, text: str, path: str, suffixes: tuple[str, ...]
) -> list[str]:
    """List the files of an input that is a file, a glob, or a folder of parts; empty where a glob or a folder has none.

    Local folders on the way that may not be entered are listed themselves. `path`: of the input in the file system.
    """
    if scheme_of(text) in HTTP:
        return [path]
    if looks_like_glob(text, filesystem, path):
        is_asked = path.rpartition("/")[2].startswith(("_", "."))
        found: list[str] = []
        for (name, is_closed), is_directory in _expanded(filesystem, path):
            if is_closed:
                found.append(name)
            elif is_directory:
                found += part_files(filesystem, name, suffixes)
            elif is_asked or _is_data(name, os.path.dirname(name)):
                found.append(name)
        return found
    return part_files(filesystem, path, suffixes) if filesystem.isdir(path) else [path]


def _expanded(filesystem: fsspec.AbstractFileSystem, pattern: str) -> list[tuple[Match, bool]]:
    """List what a glob matches, sorted, and whether each match is a folder. A store says so with its listing: it is not asked again."""
    if isinstance(filesystem, LocalFileSystem):
        return [(match, os.path.isdir(match.path)) for match in sorted(expand_glob(pattern))]
    found = sorted(filesystem.glob(pattern, detail=True).items())
    return [(Match(name), info.get("type") == "directory") for name, info in found]


def _is_data(name: str, root: str) -> bool:
    """Tell whether no part of a name below `root` says that the file is not data."""
    return not any(part.startswith(("_", ".")) for part in name[len(root) :].split("/"))


def is_image_name(name: str, suffixes: Collection[str] = IMAGE_SUFFIXES) -> bool:
    """Tell whether a folder's or an archive's file is taken as an image: by its suffix. Hidden files are left out."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in suffixes


def cannot_list(text: str, error: Exception) -> UsageError:
    """Make the error for an input whose filesystem failed."""
    return UsageError(
        f"input '{redact_url(text)}' cannot be listed: {type(error).__name__}: {redact_urls(short_message(error))}"
    )


def mtime_of(info: dict[str, Any]) -> datetime | None:
    """Read the time of modification from what fsspec knows about a file.

    It is cut to seconds: a server tells milliseconds in a listing, but not when it is asked about one object.
    """
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.astimezone(timezone.utc).replace(microsecond=0)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(int(value), tz=timezone.utc)
    return None


def etag_of(info: dict[str, Any]) -> str | None:
    """Read the etag, without its quotes, from what fsspec knows about a file; None where a server sends an empty one."""
    value = info.get("ETag") or info.get("etag")
    return str(value).strip('"') or None if value else None

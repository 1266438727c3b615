"""Inputs → what was found, streamed: folders, globs, single files, lists of uris, object store prefixes."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import chain, islice
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.images.decode import SUFFIXES
from mlcls_ray.storage.inputs.members import image_column, is_archive, list_parquet, list_tar
from mlcls_ray.storage.inputs.s3 import s3_objects
from mlcls_ray.storage.inputs.uri_list import is_uri_list, read_uri_list
from mlcls_ray.storage.uris import (
    HTTP,
    LOCAL,
    S3,
    looks_like_glob,
    open_filesystem,
    path_of_uri,
    redact_url,
    scheme_of,
    uri_of_path,
)

SORTED_ENTRIES = 100_000
"""A folder of up to so many entries is listed in the order of their names; more would have to be held for that."""


class InputEntry(NamedTuple):
    """One input. Size in bytes, mtime in UTC and etag are None where the listing does not tell.

    `attempts`: how many runs have tried it before, and got no answer.
    """

    uri: str
    size_bytes: int | None = None
    mtime: datetime | None = None
    etag: str | None = None
    attempts: int = 0


def check_inputs(inputs: Sequence[str], s3: S3Options) -> None:
    """Cheap checks before a run is made: schemes are known, local inputs exist and can be read.

    Raises:
        UsageError: names the input and what to do.
    """
    if not inputs:
        raise UsageError("no input: give a folder, a file, a glob, a list of uris, or an s3:// or http(s):// uri")
    for text in inputs:
        scheme = scheme_of(text)
        if scheme not in (LOCAL, *HTTP):
            open_filesystem(text, s3)
        if scheme != LOCAL or looks_like_glob(text):
            continue
        path = path_of_uri(text)
        if not os.path.exists(path):
            raise UsageError(f"input '{text}' does not exist")
        if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
            raise UsageError(f"input '{text}' cannot be read: permission denied")


def list_inputs(inputs: Sequence[str], s3: S3Options, uri_column: str | None = None) -> Iterator[InputEntry]:
    """Everything the inputs name, in a stable order, without holding it.

    Folders and prefixes are searched recursively for image suffixes; what is named one by one (files, lists) is taken as
    it is. Symbolic links to files are followed, links to folders are not: no loops, nothing from outside twice.

    Raises:
        UsageError: an input that does not exist or cannot be listed.
    """
    for text in inputs:
        scheme = scheme_of(text)
        if scheme not in HTTP and (is_archive(text) or _holds_images(text, uri_column, s3)):
            yield from _list_containers(text, uri_column, s3)
        elif is_uri_list(text):
            yield from (_listed(uri) for uri in read_uri_list(text, uri_column, s3))
        elif scheme == LOCAL:
            yield from _list_local(text)
        elif scheme in HTTP:
            yield InputEntry(text)
        else:
            yield from _list_remote(text, scheme, s3)


def _holds_images(text: str, column: str | None, s3: S3Options) -> bool:
    """Whether an input is Parquet with image bytes, and not a list of uris; of a glob the first match decides."""
    if not text.lower().endswith(".parquet"):
        return False
    filesystem, path = open_filesystem(text, s3)
    try:
        first = path if not looks_like_glob(text) else next(iter(sorted(filesystem.glob(path))), None)
        return first is not None and image_column(filesystem, first, column) is not None
    except (OSError, pa.ArrowInvalid):
        return False  # reading it as a list will tell why


def _list_containers(text: str, column: str | None, s3: S3Options) -> Iterator[InputEntry]:
    """The images in tar or Parquet files: one file, or those that a glob matches."""
    filesystem, path = open_filesystem(text, s3)
    scheme = scheme_of(text)
    try:
        paths = sorted(filesystem.glob(path)) if looks_like_glob(text) else [path]
        if not paths:
            raise UsageError(f"input '{text}' matches no file")
        for one in paths:
            told = filesystem.info(one)
            version = (
                _etag(told) or f"{told['size']:x}-{int(told.get('mtime') or 0):x}"
            )  # the members change with their container
            name = uri_of_path(one) if scheme == LOCAL else f"{scheme}://{one}"
            if is_archive(one):
                members = list_tar(filesystem, one, SUFFIXES)
            else:
                members = list_parquet(filesystem, one, str(image_column(filesystem, one, column)))
            for member in members:
                yield InputEntry(f"{name}#{member.fragment}", member.size_bytes, _mtime(told), version)
    except (OSError, ValueError) as error:
        raise UsageError(f"input '{redact_url(text)}' cannot be listed: {type(error).__name__}: {error}") from None


def is_image_name(name: str, suffixes: Collection[str] = SUFFIXES) -> bool:
    """Whether a folder's file is taken: by its suffix, hidden files left out."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in suffixes


def _listed(uri: str) -> InputEntry:
    """An entry of a list. Local files are asked for size and mtime (cheap); remote ones are not (a request each)."""
    try:
        if scheme_of(uri) != LOCAL:
            return InputEntry(uri)
        return _found_locally(path_of_uri(uri), os.stat(path_of_uri(uri)))
    except (OSError, ValueError, UsageError):
        return InputEntry(uri)  # reading it will tell why


def _list_local(text: str) -> Iterator[InputEntry]:
    path = path_of_uri(text)
    if looks_like_glob(text):
        matches = sorted(glob.iglob(path, recursive=True))
        if not matches:
            raise UsageError(f"input '{text}' matches no file")
        for match in matches:
            if os.path.isfile(match) and is_image_name(match):
                yield _listed(match)
    elif os.path.isdir(path):
        yield from walk(path)
    else:
        yield _listed(path)


def walk(folder: str, suffixes: Collection[str] = SUFFIXES) -> Iterator[InputEntry]:
    """A local folder's files with these suffixes, depth first.

    Each folder is sorted by name; one with more than SORTED_ENTRIES comes in the order that the file system has.

    Raises:
        UsageError: a folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            first = list(islice(entries, SORTED_ENTRIES))
            first.sort(key=lambda entry: entry.name)
            for entry in chain(first, entries):
                if entry.is_dir(follow_symlinks=False):
                    yield from walk(entry.path, suffixes)
                elif is_image_name(entry.name, suffixes):
                    yield from _regular_file(entry)
    except OSError as error:
        raise UsageError(f"folder '{folder}' cannot be listed: {error.strerror}") from None


def _regular_file(entry: os.DirEntry[str]) -> Iterator[InputEntry]:
    """The entry, unless it is a FIFO, a socket, a device or a link to a folder."""
    try:
        status = entry.stat()
    except OSError:
        yield InputEntry(uri_of_path(entry.path))  # a dangling link, for one: it becomes a `missing` row
        return
    if stat.S_ISREG(status.st_mode):
        yield _found_locally(entry.path, status)


def _found_locally(path: str, status: os.stat_result) -> InputEntry:
    mtime = datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1_000_000, tz=timezone.utc)
    return InputEntry(uri_of_path(path), status.st_size, mtime)


def _list_remote(text: str, scheme: str, s3: S3Options) -> Iterator[InputEntry]:
    filesystem, path = open_filesystem(text, s3)
    bucket, _, key = path.partition("/")
    try:
        if looks_like_glob(text):
            found: Iterable[dict[str, Any]] = filesystem.glob(path, detail=True).values()
        elif scheme in S3 and not (key and not key.endswith("/") and filesystem.isfile(path)):
            found = s3_objects(filesystem, bucket, f"{key.rstrip('/')}/" if key else "")
        else:
            found = _walk_remote(filesystem, path)
        for entry in found:
            if entry.get("type") == "file" and (entry["name"] == path or is_image_name(entry["name"])):
                yield InputEntry(f"{scheme}://{entry['name']}", entry.get("size"), _mtime(entry), _etag(entry))
    except (OSError, ValueError) as error:
        raise UsageError(f"input '{redact_url(text)}' cannot be listed: {type(error).__name__}: {error}") from None


def _walk_remote(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[dict[str, Any]]:
    if filesystem.isfile(path):
        yield filesystem.info(path)
        return
    for _, _, files in filesystem.walk(path, detail=True):
        yield from (files[name] for name in sorted(files))


def _mtime(entry: dict[str, Any]) -> datetime | None:
    """To the second: a server tells milliseconds in a listing, but not when it is asked for one object."""
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = entry.get(key)
        if isinstance(value, datetime):
            return value.astimezone(timezone.utc).replace(microsecond=0)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(int(value), tz=timezone.utc)
    return None


def _etag(entry: dict[str, Any]) -> str | None:
    """The etag without its quotes; None where a server sends an empty one."""
    value = entry.get("ETag") or entry.get("etag")
    return str(value).strip('"') or None if value else None

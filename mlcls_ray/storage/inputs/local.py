"""Local folders (searched recursively), globs, and single files."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from datetime import datetime, timezone

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.images.decode import SUFFIXES as IMAGE_SUFFIXES
from mlcls_ray.storage.inputs.base import InputEntry, InputKind, cannot_list, is_image_name
from mlcls_ray.storage.inputs.left_out import LeftOut
from mlcls_ray.storage.inputs.scan import SORTED_ENTRIES, expand_glob, scan
from mlcls_ray.storage.uris import is_local, looks_like_glob, open_filesystem, path_of_uri, uri_of_path


class LocalFiles(InputKind):
    """A local path. Folders and globs are filtered by image suffix; a file that is named is taken as it is."""

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        return is_local(text)

    def list_entries(self, text: str, s3: S3Options, uri_column: str | None, left_out: LeftOut) -> Iterator[InputEntry]:
        filesystem, path = open_filesystem(text)
        if looks_like_glob(text, filesystem, path):
            yield from matches(text, path, left_out=left_out)
        elif os.path.isdir(path):
            yield from walk(path, left_out=left_out)
        else:
            yield local_entry(uri_of_path(path))


def matches(
    text: str, pattern: str, suffixes: Collection[str] = IMAGE_SUFFIXES, left_out: LeftOut | None = None
) -> Iterator[InputEntry]:
    """Yield the files with these suffixes that a local glob matches, and the folders on the way that may not be entered.

    `text`: the glob as the user wrote it, for messages. `left_out` counts the files with other suffixes.

    Raises:
        UsageError: it matches nothing, or cannot be listed.
    """
    left_out = LeftOut() if left_out is None else left_out
    is_empty = True
    try:
        for match in expand_glob(pattern):
            is_empty = False
            if match.is_closed:
                yield InputEntry(uri_of_path(match.path))
            elif is_image_name(match.path, suffixes):
                yield from _regular_file(match.path)
            elif os.path.isfile(match.path):
                left_out.add(match.path)
    except OSError as error:
        raise cannot_list(text, error) from None
    if is_empty:
        raise UsageError(f"input '{text}' matches no file")


def local_entry(uri: str) -> InputEntry:
    """Make the entry of a local file, with size and mtime if it can be seen; else reading it will tell why not."""
    try:
        path = path_of_uri(uri)
        return _entry(path, os.stat(path))
    except (OSError, ValueError):
        return InputEntry(uri)


def walk(
    folder: str,
    suffixes: Collection[str] = IMAGE_SUFFIXES,
    sorted_entries: int = SORTED_ENTRIES,
    left_out: LeftOut | None = None,
) -> Iterator[InputEntry]:
    """Yield a local folder's files with these suffixes, depth first.

    Links to files are followed, links to folders are not: no loops, and nothing is listed twice. Each folder is sorted by
    name; of a folder with more entries, only the first `sorted_entries` that the file system returns are. A sub-folder that may not
    be entered (`lost+found`), or that is gone meanwhile, is yielded itself: reading it gives a row that says why. `left_out` counts the
    files with other suffixes.

    Raises:
        UsageError: the folder cannot be listed, or its file system fails.
    """
    try:
        yield from _walk(folder, suffixes, sorted_entries, LeftOut() if left_out is None else left_out)
    except OSError as error:
        where = error.filename or folder
        raise UsageError(f"folder '{where}' cannot be listed: {error.strerror}") from None


def _walk(folder: str, suffixes: Collection[str], sorted_entries: int, left_out: LeftOut) -> Iterator[InputEntry]:
    for entry in scan(folder, sorted_entries):
        if not entry.is_dir(follow_symlinks=False):
            if is_image_name(entry.name, suffixes):
                yield from _regular_file(entry)
            else:
                left_out.add(entry.name)
            continue
        try:
            yield from _walk(entry.path, suffixes, sorted_entries, left_out)
        except (PermissionError, FileNotFoundError):
            yield InputEntry(uri_of_path(entry.path))


def _regular_file(file: str | os.DirEntry[str]) -> Iterator[InputEntry]:
    """Yield the entry, unless it is a FIFO, a socket, a device or a folder."""
    path = os.fspath(file)
    try:
        status = os.stat(path) if isinstance(file, str) else file.stat()
    except OSError:
        yield InputEntry(uri_of_path(path))  # a dangling link, for example: it becomes a `missing` row
        return
    if stat.S_ISREG(status.st_mode):
        yield _entry(path, status)


def _entry(path: str, status: os.stat_result) -> InputEntry:
    mtime = datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1_000_000, tz=timezone.utc)
    return InputEntry(uri_of_path(path), status.st_size, mtime)

"""Files that list uris: text (one per line), CSV, and what all lists share. Relative paths are relative to the list's own folder.

A list that comes from elsewhere (`s3://`, `https://`) must not name files of this machine.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from typing import IO, ClassVar
from urllib.parse import quote

import fsspec
import pyarrow as pa

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.storage.connection import patiently
from mlcls_ray.storage.inputs.base import InputEntry, InputKind, container_files, has_parts, has_suffix
from mlcls_ray.storage.inputs.left_out import LeftOut
from mlcls_ray.storage.inputs.local import local_entry
from mlcls_ray.storage.uris import (
    HTTP,
    LOCAL,
    OTHERS,
    check_scheme,
    is_http,
    is_local,
    open_filesystem,
    redact_url,
    redact_urls,
    scheme_of,
    uri_of_path,
    without_query,
)

COLUMNS = ("uri", "url", "path", "image", "filename", "file")
"""The columns that are looked for, in this order, where the user names none."""
MAX_LENGTH = 8_192
"""The longest text, in characters, that is taken as a uri."""
SHOWN_LENGTH = 200
"""Characters of a longer text that stay in the table."""
MAX_FIELD = 1 << 26
"""The longest CSV field, in characters, that is read; Python's own limit is 128 Ki. An open quote takes no more memory than this."""
_NOT_UTF8 = re.compile("[\udc80-\udcff]+")
FIRST_BYTES = 4096
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks, the longer ones first."""
PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip", b"PAR1": "Parquet",
    b"%PDF": "PDF",
}  # fmt: skip

OTHER_TEXTS = {
    b"<!doctype html": "an HTML page, perhaps of a login or an error", b"<html": "an HTML page, perhaps of a login or an error",
    b"<?xml": "XML, perhaps an error of an object store",
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` fetches the list",
}  # fmt: skip
"""The starts, in lower case, of texts that stand in a list's place, each line of which would become a row."""


class UriList(InputKind):
    """A file that lists uris. Blank ones are left out; what is listed is taken as it is, whatever its suffix."""

    suffixes: ClassVar[tuple[str, ...]]
    """Endings of such files' names, in lower case."""
    has_columns: ClassVar[bool] = True
    """False if a line is a uri, and nothing else."""

    @abstractmethod
    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        """Yield the uris as they are written, without holding the file in memory. `name`: of the list, for messages.

        Raises:
            UsageError: the list has no such column, or a line is damaged.
        """

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        return has_suffix(without_query(text), self.suffixes, s3) or has_parts(text, self.suffixes, s3)

    def list_entries(self, text: str, s3: S3Options, uri_column: str | None, left_out: LeftOut) -> Iterator[InputEntry]:
        filesystem, pattern = open_filesystem(text, s3)
        name = redact_url(text)
        readable: set[str] = set()
        try:
            paths = container_files(filesystem, text, pattern, self.suffixes)
            if not paths:
                raise UsageError(f"input '{name}' matches no list")
            for path in paths:
                name, folder = _name_and_folder(text, path, is_alone=paths == [pattern])
                with _open(filesystem, path) as stream:
                    for number, value in enumerate(self.read_uris(stream, name, uri_column), start=1):
                        if value.strip():
                            uri = _trimmed(value, folder, filesystem)
                            if not self.has_columns and "\t" in uri:
                                _check_no_cells(uri, folder, f"list '{name}', line {number}")
                            _check_package(uri, name, readable)
                            yield _entry(_absolute(_bounded(uri), folder, text))
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise UsageError(f"list '{name}' cannot be read: {redact_urls(error)}") from None


class TextList(UriList):
    """A text file with one uri per line."""

    suffixes = (".txt",)
    has_columns = False

    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        return iter(text_lines(stream, name))


class CsvList(UriList):
    """A CSV file with a header."""

    suffixes = (".csv",)
    delimiter: ClassVar[str] = ","

    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        csv.field_size_limit(MAX_FIELD)
        reader = csv.reader(text_lines(stream, name), delimiter=self.delimiter, strict=True)
        line = 1
        try:
            header = next(reader, [])
            at = header.index(choose_column(header, name, uri_column))
            line = reader.line_num + 1
            for row in reader:
                if at == len(header) - 1 and any(cell.strip() for cell in row[len(header) :]):
                    raise UsageError(
                        f"list '{name}', line {line}: more cells than the header has; quote a uri with '{self.delimiter}'"
                    )
                line = reader.line_num + 1
                yield row[at] if at < len(row) else ""
        except csv.Error as error:
            raise UsageError(f"list '{name}', line {line}: {error}; is a quote not closed?") from None


class TsvList(CsvList):
    """A file of cells that are separated by tabs, with a header."""

    suffixes = (".tsv",)
    delimiter = "\t"


def _open(filesystem: fsspec.AbstractFileSystem, path: str) -> IO[bytes]:
    """Open a list. One from a web server is fetched first: if its connection ends early it is fetched again."""
    if not is_http(path):
        stream: IO[bytes] = filesystem.open(path, "rb")
        return stream
    spool = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)

    def fetch() -> None:
        spool.seek(0)
        spool.truncate()
        filesystem.get_file(path, spool)

    try:
        patiently(fetch)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return spool


def text_lines(stream: IO[bytes], name: str) -> IO[str]:
    """Read UTF-8 text, with or without a BOM, or UTF-16 and UTF-32 with one. In UTF-8, other bytes become surrogates, as in Python's paths.

    Raises:
        UsageError: the file is no text; with the name of what it is.
    """
    start = stream.read(FIRST_BYTES)
    stream.seek(0)
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            return io.TextIOWrapper(stream, encoding=encoding, newline="")
    for magic, format_name in PACKED.items():
        if start.startswith(magic):
            raise UsageError(f"list '{name}' is a {format_name} file; unpack it, lists are plain text")
    for text, what in OTHER_TEXTS.items():
        if start.lstrip().lower().startswith(text):
            raise UsageError(f"list '{name}' is {what}")
    if b"\0" in start:
        raise UsageError(f"list '{name}' is not UTF-8 text: it has NUL bytes, as UTF-16 does; save it as UTF-8")
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def choose_column(columns: list[str], name: str, uri_column: str | None) -> str:
    """Choose the column of uris: the one that the user names, else the first of COLUMNS, in upper or lower case.

    Raises:
        UsageError: there is none.
    """
    if uri_column in columns:
        return str(uri_column)
    for candidate in () if uri_column else COLUMNS:
        found = [column for column in columns if column.strip().lower() == candidate]
        if found:
            return min(found, key=lambda column: column != candidate)
    if not columns:
        raise UsageError(f"list '{name}' is empty: it has no header")
    expected = uri_column or COLUMNS[0]
    raise UsageError(f"list '{name}' has no column '{expected}'{suggest(expected, columns)} (--uri-column names it)")


def _name_and_folder(text: str, path: str, is_alone: bool) -> tuple[str, str]:
    """Return the name of a list for messages, and the folder that its relative paths start from."""
    if is_local(text):
        return (text if is_alone else path), os.path.dirname(path)
    if is_alone:
        return redact_url(text), without_query(text).rpartition("/")[0]
    uri = f"{scheme_of(text)}://{path}"
    return uri, uri.rpartition("/")[0]


def _check_no_cells(uri: str, folder: str, line: str) -> None:
    """Check that a tab in a plain list is part of a name, and does not separate a uri from something else.

    Raises:
        UsageError: it separates. Each row would be `missing`.
    """
    first = uri.partition("\t")[0].rstrip()
    is_path = "://" not in f"{folder}{uri}"
    names_cells = (
        is_path and os.path.lexists(os.path.join(folder, first)) and not os.path.lexists(os.path.join(folder, uri))
    )
    if is_http(uri) or names_cells:
        raise UsageError(
            f"{line}: a tab follows '{redact_url(first)}'; a list of uris and more is a .tsv file, with a header"
        )


def _check_package(uri: str, name: str, readable: set[str]) -> None:
    """Check that the package which reads a listed uri is installed. `readable`: the schemes that were checked.

    Raises:
        UsageError: with the extra. Rows would say the same, once each, and an incremental run would not try them again.
    """
    try:
        scheme = scheme_of(uri)
    except UsageError:
        return  # its row has the message
    if scheme in readable or scheme not in OTHERS:
        return
    try:
        check_scheme(uri)
    except UsageError as error:
        raise UsageError(f"list '{name}': {error}") from None
    readable.add(scheme)


def _trimmed(value: str, folder: str, filesystem: fsspec.AbstractFileSystem) -> str:
    """Remove the blanks around a listed uri, unless they are part of an existing name.

    `folder`, `filesystem`: of the list; objects elsewhere cannot be asked for.
    """
    uri = value.strip()
    exact = value.strip("\r\n")
    name = exact.lstrip() if "://" in exact else exact  # before `s3://` a blank means nothing
    if name == uri or len(name) > MAX_LENGTH:
        return uri
    place = name if "://" in name else os.path.join(folder, name)
    try:
        is_here = scheme_of(place) == scheme_of(folder) and scheme_of(place) not in HTTP
        return name if is_here and filesystem.exists(place) else uri
    except (UsageError, OSError, ValueError):
        return uri  # its row has the message


def _bounded(uri: str) -> str:
    """Cut what is too long for a uri, such as a `data:` uri: one row then names nothing, instead of megabytes of table."""
    return uri if len(uri) <= MAX_LENGTH else uri[:SHOWN_LENGTH] + "…"


def _absolute(uri: str, folder: str, text: str) -> str:
    """Resolve a relative path against the list's folder, and make the uri valid text.

    Raises:
        UsageError: a remote list names a local file.
    """
    try:
        is_path = scheme_of(uri) == LOCAL
    except UsageError:
        is_path = False  # reading it will fail with this message, and its row has it
    uri = _valid_text(uri, is_path)
    if not is_path:
        return uri
    if not is_local(text):
        if uri.startswith("/") or uri.lower().startswith("file://"):
            raise UsageError(f"list '{redact_url(text)}' names the local file '{uri}': only a local list may")
        return f"{folder}/{uri}"
    return uri if uri.lower().startswith("file://") else uri_of_path(os.path.join(folder, uri))


def _valid_text(uri: str, is_path: bool) -> str:
    """Replace surrogates by U+FFFD, because Parquet cannot store them. In a path they stand for bytes that are not UTF-8."""
    if is_http(uri):  # the bytes that the server knows
        uri = _NOT_UTF8.sub(lambda found: quote(found[0], errors="surrogateescape"), uri)
    try:
        uri.encode("utf-8", "surrogateescape" if is_path else "strict")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in uri)
    return uri


def _entry(uri: str) -> InputEntry:
    """Make the entry of a listed uri. Local files are asked for size and mtime; remote ones are not: a request each."""
    try:
        is_path = is_local(uri)
    except UsageError:
        is_path = False
    return local_entry(uri) if is_path else InputEntry(uri)

"""Files that list uris: text (one per line), CSV, Parquet. Relative paths are relative to the list's own folder.

A list that comes from elsewhere (`s3://`, `https://`) must not name files of this machine.
"""

from __future__ import annotations

import csv
import io
import os
from abc import abstractmethod
from collections.abc import Iterator
from typing import IO, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.storage.inputs.base import InputEntry, InputKind, has_suffix
from mlcls_ray.storage.inputs.local import local_entry
from mlcls_ray.storage.uris import LOCAL, is_local, open_filesystem, redact_url, scheme_of, uri_of_path

COLUMNS = ("uri", "url", "path", "image", "filename", "file")
"""The columns that are looked for, in this order, where the user names none."""
MAX_LENGTH = 8_192
"""The longest text, in characters, that is taken as a uri."""
SHOWN_LENGTH = 200
"""Characters of a longer text that stay in the table."""
MAX_FIELD = 1 << 30
"""The longest CSV field, in characters, that is read; Python's own limit is 128 Ki."""


class UriList(InputKind):
    """A file that lists uris. Blank ones are left out; what is listed is taken as it is, whatever its suffix."""

    suffixes: ClassVar[tuple[str, ...]]
    """Endings of such files' names, in lower case."""

    @abstractmethod
    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        """Yield the uris as they are written, without holding the file in memory. `name`: of the list, for messages.

        Raises:
            UsageError: the list has no such column, or a line is damaged.
        """

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        return has_suffix(text.partition("?")[0], self.suffixes)

    def list_entries(self, text: str, s3: S3Options, uri_column: str | None) -> Iterator[InputEntry]:
        filesystem, path = open_filesystem(text, s3)
        folder = os.path.dirname(path) if is_local(text) else text.partition("?")[0].rpartition("/")[0]
        name = redact_url(text)
        try:
            with filesystem.open(path, "rb") as stream:
                for value in self.read_uris(stream, name, uri_column):
                    if uri := value.strip():
                        yield _entry(_absolute(_bounded(uri), folder, text))
        except (OSError, pa.ArrowInvalid, csv.Error) as error:
            raise UsageError(f"list '{name}' cannot be read: {error}") from None


class TextList(UriList):
    """A text file with one uri per line."""

    suffixes = (".txt",)

    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        return iter(text_lines(stream))


class CsvList(UriList):
    """A CSV file with a header."""

    suffixes = (".csv",)

    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        csv.field_size_limit(MAX_FIELD)
        reader = csv.DictReader(text_lines(stream))
        column = choose_column(list(reader.fieldnames or []), name, uri_column)
        for row in reader:
            yield row[column] or ""


class ParquetList(UriList):
    """A Parquet file with a column of uris."""

    suffixes = (".parquet",)

    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        table = pq.ParquetFile(stream)
        column = choose_column(table.schema_arrow.names, name, uri_column)
        for batch in table.iter_batches(columns=[column]):
            yield from (value or "" for value in batch.column(0).to_pylist())


def text_lines(stream: IO[bytes]) -> IO[str]:
    """Read UTF-8 text, with or without a BOM. Other bytes become surrogates, as in Python's paths."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def choose_column(columns: list[str], name: str, uri_column: str | None) -> str:
    """Choose the column of uris: the one that the user names, else the first of COLUMNS.

    Raises:
        UsageError: there is none.
    """
    for candidate in (uri_column,) if uri_column else COLUMNS:
        if candidate in columns:
            return candidate
    expected = uri_column or COLUMNS[0]
    raise UsageError(f"list '{name}' has no column '{expected}'{suggest(expected, columns)} (--uri-column names it)")


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
        if uri.startswith(("/", "file://")):
            raise UsageError(f"list '{redact_url(text)}' names the local file '{uri}': only a local list may")
        return f"{folder}/{uri}"
    return uri if uri.startswith("file://") else uri_of_path(os.path.join(folder, uri))


def _valid_text(uri: str, is_path: bool) -> str:
    """Replace surrogates by "?", because Parquet cannot store them. In a path they stand for bytes that are not UTF-8."""
    try:
        uri.encode("utf-8", "surrogateescape" if is_path else "strict")
    except UnicodeEncodeError:
        return uri.encode("utf-8", "replace").decode()
    return uri


def _entry(uri: str) -> InputEntry:
    """Make the entry of a listed uri. Local files are asked for size and mtime; remote ones are not: a request each."""
    try:
        is_path = is_local(uri)
    except UsageError:
        is_path = False
    return local_entry(uri) if is_path else InputEntry(uri)

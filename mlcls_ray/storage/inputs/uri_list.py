"""Lists of uris: text (one a line), CSV, Parquet. Relative paths are relative to the list's own folder.

A list that comes from elsewhere (`s3://`, `https://`) must not name files of this machine.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.storage.uris import LOCAL, is_local, open_filesystem, redact_url, scheme_of, uri_of_path

SUFFIXES = (".txt", ".csv", ".parquet")
COLUMNS = ("uri", "url", "path", "image", "filename", "file")
"""The column names that are taken, in this order, where none is named."""

MAX_LENGTH, SHOWN_LENGTH = 8_192, 200
"""Characters of a uri, and of one that is longer."""
MAX_FIELD = 1 << 30


def is_uri_list(text: str) -> bool:
    """Whether an input is a list, by its suffix. A folder may be called `x.csv`."""
    lowered = text.lower().partition("?")[0]
    return lowered.endswith(SUFFIXES) and not (is_local(text) and os.path.isdir(text))


def read_uri_list(text: str, column: str | None, s3: S3Options) -> Iterator[str]:
    """The uris of a list, streamed; blank lines are passed over.

    Raises:
        UsageError: the list cannot be read, or has no such column.
    """
    filesystem, path = open_filesystem(text, s3)
    folder = os.path.dirname(path) if is_local(text) else text.partition("?")[0].rpartition("/")[0]
    try:
        with filesystem.open(path, "rb") as stream:
            if path.lower().endswith(".parquet"):
                values = _parquet(stream, text, column)
            else:
                lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
                values = _csv(lines, text, column) if path.lower().endswith(".csv") else iter(lines)
            for value in values:
                if cleaned := value.strip():
                    yield _absolute(_bounded(cleaned), folder, text)
    except (OSError, pa.ArrowInvalid, csv.Error) as error:
        raise UsageError(f"list '{text}' cannot be read: {error}") from None


def _bounded(uri: str) -> str:
    """What is too long to be a uri (a `data:` uri, for one) becomes a row that names nothing, and not megabytes of table."""
    return uri if len(uri) <= MAX_LENGTH else uri[:SHOWN_LENGTH] + "…"


def _absolute(uri: str, folder: str, text: str) -> str:
    try:
        is_path = scheme_of(uri) == LOCAL
    except UsageError:
        return uri  # a row that says so
    if not is_path:
        return uri
    if not is_local(text):
        if uri.startswith(("/", "file://")):
            raise UsageError(f"list '{redact_url(text)}' names the local file '{uri}': only a local list may")
        return f"{folder}/{uri}"
    return uri if uri.startswith("file://") else uri_of_path(os.path.join(folder, uri))


def _csv(lines: IO[str], text: str, column: str | None) -> Iterator[str]:
    csv.field_size_limit(MAX_FIELD)
    reader = csv.DictReader(lines)
    name = _column(list(reader.fieldnames or []), text, column)
    for row in reader:
        yield row[name] or ""


def _parquet(stream: IO[bytes], text: str, column: str | None) -> Iterator[str]:
    table = pq.ParquetFile(stream)
    name = _column(table.schema_arrow.names, text, column)
    for batch in table.iter_batches(columns=[name]):
        yield from (value or "" for value in batch.column(0).to_pylist())


def _column(names: list[str], text: str, column: str | None) -> str:
    for candidate in (column,) if column else COLUMNS:
        if candidate in names:
            return candidate
    wanted = column or COLUMNS[0]
    raise UsageError(f"list '{text}' has no column '{wanted}'{suggest(wanted, names)} (--uri-column names it)")

"""The rows of a query on standard output, or in a file; and pages in files.

Standard output is never opened by name: that would write over what a file holds already (`>> log`), and fails for a socket.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.whole import written_whole
from mlcls_ray.table.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

FETCH_ROWS = 10_000
COPIED = {
    "csv": "FORMAT csv, HEADER",
    "json": "FORMAT json",
    "parquet": "FORMAT parquet",
    "table": "FORMAT csv, HEADER",
}
"""DuckDB's options for a file in each format."""


def print_rows(database: DuckDBPyConnection, sql: str, format: str) -> None:
    """Stream the result of a query to standard output, in UTF-8: CSV with a header, or a JSON object per line.

    Memory: a batch of rows.
    """
    rows = _rows(sql)
    as_json, as_text = f"SELECT to_json(one_row)::VARCHAR FROM {rows}", f"SELECT COLUMNS(*)::VARCHAR FROM {rows}"  # noqa: S608
    with _text_output() as stream:
        if format == "json":
            for (line,) in _fetched(database.sql(as_json)):
                stream.write(f"{line}\n")
            return
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(database.sql(f"FROM {rows}").columns)
        writer.writerows(_fetched(database.sql(as_text)))


def save_rows(database: DuckDBPyConnection, sql: str, format: str, target: Path) -> None:
    """Write the result of a query into a new file, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with written_whole(target) as partial:
            database.execute(f"COPY (FROM {_rows(sql)}) TO {quoted(str(partial))} ({COPIED[format]})")
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror or error}") from None


def write_page(target: Path, page: bytes) -> None:
    """Write a file that a command made, whole or not at all; one that is there is replaced.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with written_whole(target) as partial:
            partial.write_bytes(page)
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror or error}") from None


def _rows(sql: str) -> str:
    """Make a query the name of a table; it may end with a semicolon or a comment."""
    return f"(\n{sql.rstrip().rstrip(';')}\n) AS one_row"


def _fetched(rows: DuckDBPyRelation) -> Iterator[tuple[str | None, ...]]:
    for batch in rows.to_arrow_reader(FETCH_ROWS):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@contextmanager
def _text_output() -> Iterator[IO[str]]:
    """Open standard output for UTF-8, whatever the locale; of a process without one, nothing is kept."""
    if sys.stdout is None:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            yield nowhere
        return
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # replaced by a program that calls this one
        yield sys.stdout
        return
    sys.stdout.flush()
    stream = io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="")
    try:
        yield stream
        stream.flush()
    finally:
        stream.detach()

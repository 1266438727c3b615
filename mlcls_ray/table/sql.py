"""SQL text for DuckDB, where a parameter cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterable


def quoted(text: str) -> str:
    """Quote text."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quote the name of a schema, table or column."""
    return '"' + name.replace('"', '""') + '"'


def parquet_rows(files: Iterable[str]) -> str:
    """Name the rows of Parquet files as a table. Columns are matched by name.

    DuckDB takes a file's name for a pattern, so that `photos[1]` would also be `photos1`: what means something in a pattern is escaped.
    It would also make columns of folders that are called `year=2024`, or replace those of the same name.
    """
    names = ", ".join(quoted(_literal(file)) for file in files)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


def _literal(file: str) -> str:
    return re.sub(r"[*?[]", r"[\g<0>]", file)

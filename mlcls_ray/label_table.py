"""`open_labels`: the label table of an output, the newest row of each uri over all committed runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from duckdb import DuckDBPyRelation, connect

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.runs.ledger_view import ALL_ROWS, LABELS, committed_files, create_label_views
from mlcls_ray.storage.store import Store

if TYPE_CHECKING:
    import pandas
    import polars


def open_labels(out: str, s3: S3Options | None = None) -> LabelTable:
    """Open the label table of an output folder, local or `s3://`.

    What it shows is what was committed when it was opened.

    Raises:
        UsageError: nothing has been committed there.
    """
    store = Store(out, s3)
    files = committed_files(store)
    if not files:
        raise UsageError(f"'{out}' holds no committed run")
    return LabelTable(store, files)


class LabelTable:
    """Two views in DuckDB: `labels`, the newest row of each uri, and `all_rows`, those of all runs. Nothing is read before it is asked for.

    A query's result comes as DuckDB's relation; it has `.fetchall()`, `.show()`, `.df()`, `.pl()`, `.to_arrow_table()`.
    """

    def __init__(self, store: Store, files: list[str]) -> None:
        self.database = connect()
        store.register_with(self.database)
        create_label_views(self.database, files)

    def sql(self, query: str) -> DuckDBPyRelation:
        """A query over the views `labels` and `all_rows`."""
        return self.database.sql(query)

    def duckdb(self) -> DuckDBPyRelation:
        """The newest row of each uri, as a DuckDB relation."""
        return self.database.table(LABELS)

    def all_rows(self) -> DuckDBPyRelation:
        """The rows of all runs, as a DuckDB relation."""
        return self.database.table(ALL_ROWS)

    def arrow(self) -> pa.Table:
        """The newest row of each uri, in memory."""
        return self.duckdb().to_arrow_table()

    def pandas(self) -> pandas.DataFrame:
        """The newest row of each uri, in memory."""
        frame: pandas.DataFrame = self.duckdb().df()
        return frame

    def polars(self) -> polars.DataFrame:
        """The newest row of each uri, in memory."""
        frame: polars.DataFrame = self.duckdb().pl()
        return frame

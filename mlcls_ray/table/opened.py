"""What every opened table has: an SQL connection with a view `labels`, and ways into other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from mlcls_ray.config import S3Options

if TYPE_CHECKING:
    import pandas
    import polars
    from IPython.display import HTML


class OpenedTable:
    """A DuckDB connection with the views `labels` (one row per uri) and `all_rows`. Rows are read only when they are queried.

    Results are DuckDB relations; they have `.fetchall()`, `.show()`, `.df()`, `.pl()` and `.to_arrow_table()`.
    """

    def __init__(self, database: DuckDBPyConnection, s3: S3Options) -> None:
        self.database = database
        self.s3 = s3

    def sql(self, query: str) -> DuckDBPyRelation:
        """Run a query over the views."""
        return self.database.sql(query)

    def duckdb(self) -> DuckDBPyRelation:
        """Return the view `labels` as a DuckDB relation."""
        return self.database.table("labels")

    def all_rows(self) -> DuckDBPyRelation:
        """Return the rows of all runs as a DuckDB relation."""
        return self.database.table("all_rows")

    def arrow(self) -> pa.Table:
        """Load the view `labels` into memory."""
        return self.duckdb().to_arrow_table()

    def pandas(self) -> pandas.DataFrame:
        """Load the view `labels` into memory."""
        frame: pandas.DataFrame = self.duckdb().df()
        return frame

    def polars(self) -> polars.DataFrame:
        """Load the view `labels` into memory."""
        frame: polars.DataFrame = self.duckdb().pl()
        return frame

    def show(self, count: int = 12, where: str = "status = 'ok'") -> HTML:
        """Draw some images with their labels inline in a notebook.

        Args:
            count: Number of images, at most.
            where: A condition in SQL, such as `list_contains(labels, 'cat')`. The same condition shows the same images.

        Raises:
            ImportError: outside a notebook, where there is no IPython.
        """
        from IPython.display import HTML

        from mlcls_ray.table.thumbnails import inline_sheet

        rows = self.duckdb().filter(where).order("hash(uri)").limit(count).project("uri, labels, scores").fetchall()
        return HTML(inline_sheet(self.s3, rows))

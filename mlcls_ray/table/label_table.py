"""`open_labels`: the label table of an output, the newest row of each uri over all committed runs, or the rows of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation, connect

from mlcls_ray import schema
from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.output import open_output
from mlcls_ray.table.records import RunRecord, Success, newest_record, no_runs, read_record, read_success
from mlcls_ray.table.views import ALL_ROWS, LABELS, committed_files, create_label_views

if TYPE_CHECKING:
    import pandas
    import polars
    from IPython.display import HTML
    from ray.data import Dataset

THRESHOLDS = "thresholds"
"""The table of the runs' thresholds: run_id, class_id, label, threshold."""


def open_labels(out: str, s3: S3Options | None = None, run_id: str | None = None) -> LabelTable:
    """Open the label table of an output folder, local or `s3://`; `run_id`: the rows of this run only.

    What it shows is what was committed when it was opened.

    Raises:
        UsageError: nothing has been committed there, or not that run.
    """
    store = open_output(out, s3)
    committed = {name: success for name in store.names(layout.RUNS) if (success := read_success(store, name))}
    if not committed:
        raise no_runs(store)
    if run_id is not None and run_id not in committed:
        raise UsageError(f"'{out}' holds no committed run '{run_id}'{suggest(run_id, committed)}")
    chosen = {run_id: committed[run_id]} if run_id else committed
    if not any(success.fragments for success in chosen.values()):
        raise UsageError(f"'{out}' holds no labeled image")
    return LabelTable(store, chosen)


class LabelTable:
    """Two views in DuckDB: `labels`, the newest row of each uri, and `all_rows`, those of all runs; and the table `thresholds` (run_id,
    class_id, label, threshold). Nothing of the rows is read before it is asked for.

    A query's result comes as DuckDB's relation; it has `.fetchall()`, `.show()`, `.df()`, `.pl()`, `.to_arrow_table()`.
    """

    def __init__(self, store: Store, successes: dict[str, Success]) -> None:
        self.store = store
        self.successes = successes
        """`_SUCCESS` by run, for the runs whose rows are here."""
        records = {name: read_record(store, name) for name in successes}
        self.records: dict[str, RunRecord] = {name: record for name, record in records.items() if record}
        self.database: DuckDBPyConnection = connect()
        store.register_with(self.database)
        create_label_views(self.database, committed_files(store, successes))
        create_thresholds(self.database, self.records)

    @property
    def newest(self) -> RunRecord:
        """The record of the run that was begun last.

        Raises:
            UsageError: the runs have no run.json any more.
        """
        found = newest_record(self.records.values())
        if found is None:
            raise UsageError(f"'{self.store.root}' has no run.json of its runs")
        return found

    def sql(self, query: str) -> DuckDBPyRelation:
        """A query over the views `labels` and `all_rows`, and the table `thresholds`."""
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

    def ray(self) -> Dataset:
        """The rows of all runs as a Ray dataset, read in parallel and not in memory; starts Ray unless it runs."""
        import ray.data

        names = [
            f"{layout.labels_folder(run)}/{one.name}" for run, told in self.successes.items() for one in told.fragments
        ]
        paths = [self.store.data_path(name) for name in names]
        return ray.data.read_parquet([path for path, _ in paths], filesystem=paths[0][1])

    def show(self, count: int = 12, where: str = "status = 'ok'") -> HTML:
        """Some images with their labels, drawn inline in a notebook. `where`: a condition in SQL, such as
        `list_contains(labels, 'cat')`; the same condition shows the same images.

        Raises:
            ImportError: outside a notebook, where there is no IPython.
        """
        from IPython.display import HTML

        from mlcls_ray.table.thumbnails import inline_sheet

        rows = self.database.execute(
            f"SELECT {schema.URI}, {schema.LABELS}, {schema.SCORES} FROM {LABELS} WHERE {where} ORDER BY hash({schema.URI}) LIMIT ?",
            [count],
        ).fetchall()
        return HTML(inline_sheet(self.store.s3, rows))


def create_thresholds(database: DuckDBPyConnection, records: dict[str, RunRecord]) -> None:
    """The table `thresholds`; a class's id is its place in the vocabulary."""
    rows = [
        (run_id, class_id, label, threshold)
        for run_id, record in records.items()
        for class_id, (label, threshold) in enumerate(record.thresholds.items())
    ]
    kinds = {"run_id": pa.string(), "class_id": pa.int16(), "label": pa.string(), "threshold": pa.float32()}
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    told = pa.table([pa.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)], list(kinds))
    database.register("told", told)
    database.execute(f"CREATE TABLE {THRESHOLDS} AS SELECT * FROM told")

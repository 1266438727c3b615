"""Views of a label table in DuckDB, out of core: all committed rows, the newest row of each uri, and one row per score.

Nothing else in the package says which row of a uri is the newest one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table.fragments import fragment_paths
from mlcls_ray.table.ledger import RowSet
from mlcls_ray.table.records import RunRecord, Success, read_successes
from mlcls_ray.table.sql import parquet_rows

MEMORY_LIMIT = "1GB"
FETCH_ROWS = 1_000_000

MACROS = """
    CREATE MACRO ranked(view) AS TABLE
    SELECT *, row_number() OVER (
        PARTITION BY uri ORDER BY run_number DESC NULLS LAST, labeled_at DESC, run_id DESC, row_id DESC
    ) AS recency_rank
    FROM query_table(view);

    CREATE MACRO newest(view) AS TABLE
    SELECT * EXCLUDE (recency_rank) FROM ranked(view) WHERE recency_rank = 1;
"""
"""`recency_rank` 1 is the newest row of its uri: that of the run that was started last.

Clocks decide only between runs that have no place of their own (they began before runs were numbered, or started at the same moment).
`labeled_at` is the same for a whole batch, so that a uri listed twice needs the other two columns."""
FIRST_LAYOUT = "SELECT NULL::INTEGER AS run_number, NULL::FLOAT[] AS embedding WHERE false"
"""No rows, with the columns that outputs of the first layout may lack."""
LABELS = "CREATE VIEW labels AS FROM newest('all_rows')"
SCORES_OF = """
    CREATE MACRO scores_of(view) AS TABLE
    SELECT uri, run_id, model, class_id, class, label, score, threshold
    FROM (
        SELECT uri, run_id, unnest(all_scores) AS score, (generate_subscripts(all_scores, 1) - 1)::SMALLINT AS class_id
        FROM query_table(view)
    ) JOIN thresholds USING (run_id, class_id)
    WHERE score IS NOT NULL
"""
SCORES = "CREATE VIEW scores AS FROM scores_of('labels')"
THRESHOLDS = pa.schema(
    [
        ("run_id", pa.string()),
        ("model", pa.string()),
        ("class_id", pa.int16()),
        ("class", pa.string()),
        ("label", pa.string()),
        ("threshold", pa.float32()),
    ]
)
"""The classes of each run. `label` is that of the label map: the class's own name without one, null for a class that gives no label."""
LEDGER = """
    CREATE TABLE ledger AS
    SELECT uri, status, attempts, size_bytes, mtime, etag, model_fingerprint, preprocess_fingerprint, run_id, row_id, labeled_at
    FROM labels
"""
SUPERSEDED = "SELECT run_id, row_id FROM ranked('all_rows') WHERE recency_rank > 1"


@contextlib.contextmanager
def open_database() -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """Open a DuckDB connection that spills into a temporary folder of its own; yields both."""
    with (
        tempfile.TemporaryDirectory(prefix="mlcls-") as folder,
        duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": f"{folder}/duckdb"}) as database,
    ):
        yield database, folder


def committed_files(store: Store, successes: Mapping[str, Success] | None = None) -> list[str]:
    """List the fragments of committed runs (by default all), as DuckDB takes them once the store is registered."""
    runs = read_successes(store) if successes is None else successes
    return [store.data_uri(path) for success in runs.values() for path in fragment_paths(store, success)]


def create_view(
    database: duckdb.DuckDBPyConnection, name: str, files: Sequence[str], like: pa.Schema | None = None
) -> None:
    """Create a view of Parquet files; if there are none, an empty one.

    `like`: the columns if there are no files. By default they are the label table's, and added where files of its first layout lack some.
    """
    if not files:
        # A table of DuckDB's own: a view of an Arrow table would belong to this connection only.
        database.register("no_rows", (schema.LABEL_TABLE if like is None else like).empty_table())
        database.execute(f"CREATE OR REPLACE TABLE no_{name} AS FROM no_rows; CREATE VIEW {name} AS FROM no_{name}")
        database.unregister("no_rows")
        return
    added = f" UNION ALL BY NAME {FIRST_LAYOUT}" if like is None else ""
    database.execute(f"CREATE VIEW {name} AS FROM {parquet_rows(files)}{added}")


def create_label_views(database: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    """Create `all_rows` over committed fragments, and `labels`: the newest row of each uri. Both read the files only when queried."""
    create_view(database, "all_rows", files)
    database.execute(MACROS)
    database.execute(LABELS)


def create_score_view(database: duckdb.DuckDBPyConnection, records: Mapping[str, RunRecord]) -> None:
    """Create the table `thresholds`, the macro `scores_of`, and the view `scores`: one row per image of `labels` and kept score."""
    rows = [
        (run_id, record.model, class_id, name, record.label_map.get(name, name), threshold)
        for run_id, record in records.items()
        for class_id, (name, threshold) in enumerate(record.thresholds.items())
    ]
    columns = zip(*rows, strict=True) if rows else [()] * len(THRESHOLDS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, THRESHOLDS, strict=True)]
    database.register("records", pa.table(arrays, schema=THRESHOLDS))
    database.execute("CREATE TABLE thresholds AS SELECT * FROM records")
    database.unregister("records")
    database.execute(SCORES_OF)
    database.execute(SCORES)


def create_ledger(database: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Create the table `ledger`: of the newest committed row of each uri, the columns that decide whether to label the input again."""
    store.register_with(database)
    create_label_views(database, committed_files(store))
    database.execute(LEDGER)


def superseded_rows(store: Store, totals: Mapping[str, int]) -> dict[str, RowSet]:
    """Find the committed rows whose uri has a newer row, by run; `totals`: the number of rows of each run.

    Out of core, but for one bit per row.
    """
    superseded = {run_id: RowSet(total) for run_id, total in totals.items()}
    with open_database() as (database, _):
        store.register_with(database)
        create_label_views(database, committed_files(store))
        for batch in database.sql(SUPERSEDED).to_arrow_reader(FETCH_ROWS):
            for run_id in pc.unique(batch.column(0)).to_pylist():
                rows = batch.filter(pc.equal(batch.column(0), run_id))
                superseded[run_id].add(rows.column(1).to_numpy())
    return superseded


def query_rows(database: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run a query with named parameters; returns each row as a dict by column name."""
    rows: list[dict[str, Any]] = database.sql(query, params=dict(values)).to_arrow_table().to_pylist()
    return rows

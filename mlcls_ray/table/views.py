"""The ledger between runs, for DuckDB: all committed rows, and the newest one of each uri. Out of core."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import RowSet
from mlcls_ray.table.records import Success, read_success

MEMORY_LIMIT = "1GB"

ALL_ROWS = "all_rows"
"""The view of all committed rows."""
LABELS = "labels"
"""The view of the newest row of each uri."""
NEWEST_FIRST = f"{schema.LABELED_AT} DESC, {schema.RUN_ID} DESC, {schema.ROW_ID} DESC"


@contextlib.contextmanager
def open_database() -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A DuckDB connection that spills into a temporary folder of its own; and that folder."""
    with (
        tempfile.TemporaryDirectory(prefix="mlcls-") as folder,
        duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": f"{folder}/duckdb"}) as database,
    ):
        yield database, folder


def committed_files(store: Store, successes: Mapping[str, Success] | None = None) -> list[str]:
    """The fragments of committed runs (by default all), as DuckDB takes them once the store is registered."""
    files = []
    for run_id in store.names(layout.RUNS) if successes is None else successes:
        if success := successes[run_id] if successes else read_success(store, run_id):
            files += store.data_uris(layout.labels_folder(run_id), (one.name for one in success.fragments))
    return files


def create_view(database: duckdb.DuckDBPyConnection, name: str, files: Sequence[str], like: pa.Schema) -> None:
    """A view of the columns of `like` in Parquet files, or an empty one where there are no files."""
    if files:
        database.execute(f"CREATE VIEW {name} AS SELECT {', '.join(like.names)} FROM {_parquet(files)}")
    else:
        database.register(name, like.empty_table())


def create_label_views(database: duckdb.DuckDBPyConnection, files: Sequence[str], suffix: str = "") -> None:
    """The views `all_rows` over committed fragments, and `labels`, the newest row of each uri among them."""
    database.execute(f"CREATE VIEW {ALL_ROWS}{suffix} AS SELECT * FROM {_parquet(files)}")
    database.execute(
        f"CREATE VIEW {LABELS}{suffix} AS SELECT * FROM {ALL_ROWS}{suffix} "
        f"QUALIFY row_number() OVER (PARTITION BY {schema.URI} ORDER BY {NEWEST_FIRST}) = 1"
    )


def superseded_rows(store: Store, totals: Mapping[str, int]) -> dict[str, RowSet]:
    """The committed rows whose uri has a newer row, by run; `totals`: how many rows each run has. Out of core but for a bit a row."""
    found = {run_id: RowSet(total) for run_id, total in totals.items()}
    with open_database() as (database, _):
        store.register_with(database)
        create_view(database, "labeled", committed_files(store), LEDGER)
        query = (
            f"SELECT {schema.RUN_ID}, {schema.ROW_ID} FROM labeled "
            f"QUALIFY row_number() OVER (PARTITION BY {schema.URI} ORDER BY {NEWEST_FIRST}) > 1"
        )
        for batch in database.sql(query).to_arrow_reader(1_000_000):
            for run_id in pc.unique(batch.column(0)).to_pylist():
                rows = batch.filter(pc.equal(batch.column(0), run_id))
                found[run_id].add(rows.column(1).to_numpy())
    return found


def create_ledger(database: duckdb.DuckDBPyConnection, store: Store) -> None:
    """The table `ledger`: what decides whether an input is to be labeled, in the newest committed row of each uri, as a struct `newest`."""
    store.register_with(database)
    create_view(database, "labeled", committed_files(store), LEDGER)
    database.execute(
        f"CREATE TABLE ledger AS SELECT arg_max(labeled, {schema.LABELED_AT}) AS newest FROM labeled GROUP BY {schema.URI}"
    )


def _parquet(files: Sequence[str]) -> str:
    # Two models have as many classes each as they like: their columns agree by name, not by length.
    return f"read_parquet([{', '.join(map(quoted, files))}], union_by_name = true)"


def quoted(text: str) -> str:
    """Text as SQL spells it."""
    return "'" + text.replace("'", "''") + "'"


LEDGER = pa.schema(
    [
        schema.label_table(1).field(name)
        for name in (
            schema.ROW_ID, schema.URI, schema.STATUS, schema.ATTEMPTS, schema.SIZE_BYTES, schema.MTIME, schema.ETAG,
            schema.MODEL_FINGERPRINT, schema.PREPROCESS_FINGERPRINT, schema.RUN_ID, schema.LABELED_AT,
        )
    ]
)  # fmt: skip

"""Incremental runs: which inputs are new or changed since they were labeled, by an anti-join that DuckDB does out of core.

The key of the ledger between runs is (uri, etag or size and mtime, model fingerprint, preprocessing fingerprint); the newest row of
each uri counts, over all committed runs. What failed in a way that may pass is tried again.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.errors import TRANSIENT
from mlcls_ray.models.artifact import Model
from mlcls_ray.runs.records import read_success
from mlcls_ray.storage import layout
from mlcls_ray.storage.listing import Found
from mlcls_ray.storage.manifest import manifest_table
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import public_uri

SPOOL_ROWS = 100_000
FETCH_ROWS = 10_000
MEMORY_LIMIT = "1GB"
KEY = "key"
"""The uri as the label table has it: without what signs it."""


@contextlib.contextmanager
def open_changes(store: Store, model: Model, inputs: list[str], listed: Iterable[Found]) -> Iterator[Changes]:
    """Compare a listing of `inputs` (as run.json keeps them) with the ledger.

    Everything is spooled to a temporary folder: neither the listing nor the ledger is held in memory.
    """
    with tempfile.TemporaryDirectory(prefix="mlcls-") as folder:
        count = _spool(listed, Path(folder))
        with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": f"{folder}/duckdb"}) as database:
            database.execute(f"CREATE VIEW listing AS SELECT * FROM read_parquet('{folder}/listing-*.parquet')")
            _create_ledger(database, store, inputs)
            yield Changes(database, model, count)


class Changes:
    """A listing against the ledger."""

    def __init__(self, database: duckdb.DuckDBPyConnection, model: Model, listed: int) -> None:
        self.database = database
        self.listed = listed
        self.model = model

    def new(self) -> Iterator[Found]:
        """The new and changed inputs, streamed in the order of the listing."""
        again = sorted(status.value for status in TRANSIENT)
        known = [self.model.fingerprint, self.model.preprocess_fingerprint, again]
        found = self.database.sql(NEW, params=known)
        for batch in found.to_arrow_reader(FETCH_ROWS):
            yield from (Found(*row.values()) for row in batch.to_pylist())

    def vanished(self) -> pa.Table:
        """Uris that runs over the same inputs labeled, that are not listed now, and that no later run has recorded already."""
        return self.database.sql(VANISHED).to_arrow_table()


def _spool(listed: Iterable[Found], folder: Path) -> int:
    """Parquet files of the listing, each uri with its `key`; at least one, be it empty. Returns the number of rows."""
    iterator = iter(listed)
    count = 0
    while True:
        part = list(islice(iterator, SPOOL_ROWS))
        if count and not part:
            return count
        keys = pa.array([public_uri(one.uri) for one in part], pa.string())
        table = manifest_table(part, count).append_column(KEY, keys)
        pq.write_table(table, folder / f"listing-{count:012d}.parquet")
        if not part:
            return 0
        count += len(part)


def _create_ledger(database: duckdb.DuckDBPyConnection, store: Store, inputs: list[str]) -> None:
    """The views `ledger` (newest row of each uri over the committed runs) and `recorded` (what vanished, and when that was seen)."""
    fragments, vanished, same_inputs = [], [], []
    for run_id in store.names(layout.RUNS):
        success = read_success(store, run_id)
        if success is None:
            continue
        fragments += [store.data_uri(f"{layout.labels_folder(run_id)}/{one.name}") for one in success.fragments]
        record = store.read_json(layout.run_json(run_id)) or {}
        if record.get("config", {}).get("inputs") == inputs:
            same_inputs.append(run_id)
        if layout.VANISHED in store.names(layout.run_folder(run_id)):
            vanished.append(store.data_uri(layout.vanished(run_id)))
    store.register_with(database)
    _create_table(database, "labeled", fragments, LEDGER)
    _create_table(database, "recorded", vanished, VANISHED_SCHEMA)
    database.execute("CREATE TABLE same_inputs AS SELECT unnest($1::VARCHAR[]) AS run_id", [same_inputs])
    database.execute(
        f"CREATE TABLE ledger AS SELECT arg_max(labeled, {schema.LABELED_AT}) AS newest FROM labeled GROUP BY {schema.URI}"
    )


def _create_table(database: duckdb.DuckDBPyConnection, name: str, files: list[str], like: pa.Schema) -> None:
    """A view of some columns of Parquet files, or an empty one where there are none."""
    if files:
        listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        database.execute(f"CREATE VIEW {name} AS SELECT {', '.join(like.names)} FROM read_parquet([{listed}])")
    else:
        database.register(name, like.empty_table())


NEW = f"""
    SELECT listing.{schema.URI}, listing.{schema.SIZE_BYTES}, listing.{schema.MTIME}, listing.{schema.ETAG}
    FROM listing LEFT JOIN ledger ON newest.{schema.URI} = listing.{KEY}
    WHERE newest IS NULL
       OR newest.{schema.MODEL_FINGERPRINT} <> $1 OR newest.{schema.PREPROCESS_FINGERPRINT} <> $2
       OR list_contains($3, newest.{schema.STATUS})
       OR CASE
            WHEN listing.{schema.ETAG} IS NOT NULL AND newest.{schema.ETAG} IS NOT NULL
                THEN listing.{schema.ETAG} <> newest.{schema.ETAG}
            WHEN listing.{schema.SIZE_BYTES} IS NULL THEN FALSE -- a list of uris tells nothing but the name
            ELSE listing.{schema.SIZE_BYTES} IS DISTINCT FROM newest.{schema.SIZE_BYTES}
              OR listing.{schema.MTIME} IS DISTINCT FROM newest.{schema.MTIME}
          END
    ORDER BY listing.{schema.ROW_ID}
"""
VANISHED = f"""
    SELECT newest.{schema.URI} AS {schema.URI}, newest.{schema.LABELED_AT} AS last_labeled_at
    FROM ledger
    WHERE newest.{schema.RUN_ID} IN (SELECT run_id FROM same_inputs)
      AND newest.{schema.URI} NOT IN (SELECT {KEY} FROM listing)
      AND NOT EXISTS (
        SELECT 1 FROM recorded
        WHERE recorded.{schema.URI} = newest.{schema.URI} AND recorded.last_labeled_at >= newest.{schema.LABELED_AT}
      )
    ORDER BY 1
"""
LEDGER = pa.schema(
    [
        schema.label_table(1).field(name)
        for name in (
            schema.URI, schema.STATUS, schema.SIZE_BYTES, schema.MTIME, schema.ETAG, schema.MODEL_FINGERPRINT,
            schema.PREPROCESS_FINGERPRINT, schema.RUN_ID, schema.LABELED_AT,
        )
    ]
)  # fmt: skip
VANISHED_SCHEMA = pa.schema([(schema.URI, pa.string()), ("last_labeled_at", schema.TIMESTAMP)])

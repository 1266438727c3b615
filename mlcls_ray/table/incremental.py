"""Incremental runs and retries: which inputs are to be labeled again, read off the ledger between runs by DuckDB, out of core.

Its key is (uri, etag or size and mtime, model fingerprint, preprocessing fingerprint); the newest row of each uri counts, over all
committed runs. What failed in a way that may pass is tried again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.errors import TRANSIENT, Status
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import strip_credentials
from mlcls_ray.table import layout
from mlcls_ray.table.manifest import manifest_table
from mlcls_ray.table.views import create_ledger, create_view, open_database

SPOOL_ROWS = 100_000
FETCH_ROWS = 10_000
KEY = "key"
"""The uri as the label table has it: without what signs it."""


@contextlib.contextmanager
def open_changes(
    store: Store, fingerprints: tuple[str, str], inputs: list[str], listed: Iterable[InputEntry]
) -> Iterator[Changes]:
    """Compare a listing of `inputs` (as run.json keeps them) with the ledger. `fingerprints`: of the model and of its preprocessing.

    Everything is spooled to a temporary folder: neither the listing nor the ledger is held in memory.
    """
    with open_database() as (database, folder):
        count = _spool(listed, Path(folder))
        database.execute(f"CREATE VIEW listing AS SELECT * FROM read_parquet('{folder}/listing-*.parquet')")
        create_ledger(database, store)
        _create_recorded(database, store, inputs)
        yield Changes(database, fingerprints, count)


class Changes:
    """A listing against the ledger."""

    def __init__(self, database: duckdb.DuckDBPyConnection, fingerprints: tuple[str, str], listed: int) -> None:
        self.database = database
        self.listed = listed
        self.fingerprints = fingerprints

    def new(self) -> Iterator[InputEntry]:
        """The new and changed inputs, streamed in the order of the listing."""
        again = sorted(status.value for status in TRANSIENT)
        known = [*self.fingerprints, again]
        return _found(self.database.sql(NEW, params=known))

    def vanished(self) -> pa.Table:
        """Uris that runs over the same inputs labeled, that are not listed now, and that no later run has recorded already."""
        return self.database.sql(VANISHED).to_arrow_table()


@contextlib.contextmanager
def open_failed(store: Store, statuses: Sequence[Status]) -> Iterator[Iterator[InputEntry]]:
    """The inputs whose newest row has one of the statuses, as their run's manifest has them (with what signs a URL)."""
    with open_database() as (database, _):
        create_ledger(database, store)
        chosen = sorted(status.value for status in statuses)
        runs = database.execute(
            f"SELECT DISTINCT newest.{schema.RUN_ID} FROM ledger WHERE list_contains($1, newest.{schema.STATUS}) ORDER BY 1",
            [chosen],
        ).fetchall()
        for number, (run_id,) in enumerate(runs):
            files = store.data_uris(layout.manifest_folder(run_id))
            create_view(database, f"manifest_{number}", files, schema.MANIFEST)
        queries = [FAILED.format(number=number, run=f"${number + 2}") for number in range(len(runs))]
        yield (
            _found(database.sql(" UNION ALL ".join(queries), params=[chosen, *(run for (run,) in runs)]))
            if runs
            else iter(())
        )


def _found(relation: duckdb.DuckDBPyRelation) -> Iterator[InputEntry]:
    for batch in relation.to_arrow_reader(FETCH_ROWS):
        yield from (InputEntry(*row.values()) for row in batch.to_pylist())


def _spool(listed: Iterable[InputEntry], folder: Path) -> int:
    """Parquet files of the listing, each uri with its `key`; at least one, be it empty. Returns the number of rows."""
    iterator = iter(listed)
    count = 0
    while True:
        part = list(islice(iterator, SPOOL_ROWS))
        if count and not part:
            return count
        keys = pa.array([strip_credentials(one.uri) for one in part], pa.string())
        table = manifest_table(part, count).append_column(KEY, keys)
        pq.write_table(table, folder / f"listing-{count:012d}.parquet")
        if not part:
            return 0
        count += len(part)


def _create_recorded(database: duckdb.DuckDBPyConnection, store: Store, inputs: list[str]) -> None:
    """The view `recorded` (what vanished, and when that was seen), and the runs over the same inputs."""
    vanished, same_inputs = [], []
    for run_id in store.names(layout.RUNS):
        if store.read(layout.success(run_id)) is None:
            continue
        record = store.read_json(layout.run_json(run_id)) or {}
        if record.get("config", {}).get("inputs") == inputs:
            same_inputs.append(run_id)
        if layout.VANISHED in store.names(layout.run_folder(run_id)):
            vanished.append(store.data_uri(layout.vanished(run_id)))
    create_view(database, "recorded", vanished, VANISHED_SCHEMA)
    database.execute("CREATE TABLE same_inputs AS SELECT unnest($1::VARCHAR[]) AS run_id", [same_inputs])


NEW = f"""
    SELECT listing.{schema.URI}, listing.{schema.SIZE_BYTES}, listing.{schema.MTIME}, listing.{schema.ETAG},
           CASE WHEN list_contains($3, newest.{schema.STATUS}) THEN newest.{schema.ATTEMPTS} ELSE 0 END
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
      AND NOT EXISTS (SELECT 1 FROM listing WHERE listing.{KEY} = newest.{schema.URI})
      AND NOT EXISTS (
        SELECT 1 FROM recorded
        WHERE recorded.{schema.URI} = newest.{schema.URI} AND recorded.last_labeled_at >= newest.{schema.LABELED_AT}
      )
    ORDER BY 1
"""
FAILED = f"""
    SELECT manifest.{schema.URI}, manifest.{schema.SIZE_BYTES}, manifest.{schema.MTIME}, manifest.{schema.ETAG}, newest.{schema.ATTEMPTS}
    FROM ledger JOIN manifest_{{number}} AS manifest ON newest.{schema.ROW_ID} = manifest.{schema.ROW_ID}
    WHERE newest.{schema.RUN_ID} = {{run}} AND list_contains($1, newest.{schema.STATUS})
"""
VANISHED_SCHEMA = pa.schema([(schema.URI, pa.string()), ("last_labeled_at", schema.TIMESTAMP)])

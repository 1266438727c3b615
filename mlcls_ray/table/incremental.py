"""Incremental runs and retries: DuckDB compares the inputs with the ledger between runs, out of core.

The ledger holds the newest committed row of each uri. Its key is (uri, etag or size and mtime, model fingerprint, preprocessing
fingerprint). Inputs that failed for a transient reason are labeled again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

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
from mlcls_ray.table.records import read_record, read_successes
from mlcls_ray.table.vanished import create_vanished_view
from mlcls_ray.table.views import create_ledger, create_view, open_database

SPOOL_ROWS = 100_000
FETCH_ROWS = 10_000
KEY = "key"
"""The uri as the label table has it: without credentials and signature."""

NEW = """
    SELECT listing.uri, listing.size_bytes, listing.mtime, listing.etag,
           CASE WHEN list_contains($transient, ledger.status) THEN ledger.attempts ELSE 0 END AS attempts,
           CASE
             WHEN ledger.uri IS NULL THEN 'new'
             WHEN EXISTS (SELECT 1 FROM vanished WHERE vanished.uri = ledger.uri) THEN 'new' -- it has come back
             WHEN CASE
                    WHEN listing.etag IS NOT NULL AND ledger.etag IS NOT NULL THEN listing.etag <> ledger.etag
                    WHEN listing.size_bytes IS NULL THEN FALSE -- a list of uris knows nothing but names
                    ELSE listing.size_bytes IS DISTINCT FROM ledger.size_bytes OR listing.mtime IS DISTINCT FROM ledger.mtime
                  END THEN 'changed'
             WHEN list_contains($transient, ledger.status) THEN 'retried'
             WHEN ledger.model_fingerprint <> $model OR ledger.preprocess_fingerprint <> $preprocess THEN 'other_model'
           END AS reason
    FROM listing LEFT JOIN ledger ON ledger.uri = listing.key
    WHERE reason IS NOT NULL
    ORDER BY listing.row_id
"""
GONE = """
    SELECT ledger.uri, ledger.labeled_at AS last_labeled_at
    FROM ledger
    WHERE list_contains($runs, ledger.run_id)
      AND NOT EXISTS (SELECT 1 FROM listing WHERE listing.key = ledger.uri)
      AND NOT EXISTS (
        SELECT 1 FROM recorded WHERE recorded.uri = ledger.uri AND recorded.last_labeled_at = ledger.labeled_at
      )
    ORDER BY 1
"""
FAILED_RUNS = "SELECT DISTINCT run_id FROM ledger WHERE list_contains($statuses, status) ORDER BY 1"
FAILED = """
    SELECT manifest.uri, manifest.size_bytes, manifest.mtime, manifest.etag, ledger.attempts
    FROM ledger JOIN manifest USING (row_id)
    WHERE ledger.run_id = $run AND list_contains($statuses, ledger.status)
"""


@contextlib.contextmanager
def open_changes(
    store: Store, fingerprints: tuple[str, str], inputs: list[str], listed: Iterable[InputEntry]
) -> Iterator[Changes]:
    """Compare a listing with the ledger. Neither is held in memory: the listing is spooled to a temporary folder.

    Args:
        store: The output.
        fingerprints: Those of the model and of its preprocessing.
        inputs: What was listed, as `run.json` keeps it.
        listed: The listing.
    """
    with open_database() as (database, folder):
        count, parts = _spool(listed, Path(folder))
        create_view(database, "listing", parts, schema.MANIFEST)
        create_ledger(database, store)
        _create_vanished(database, store)
        yield Changes(database, fingerprints, _runs_over(store, inputs), count)


class Changes:
    """A listing compared with the ledger. `listed` is its number of inputs; `reasons` counts those that `new` has yielded."""

    def __init__(
        self, database: duckdb.DuckDBPyConnection, fingerprints: tuple[str, str], runs: list[str], listed: int
    ) -> None:
        self.database = database
        self.fingerprints = fingerprints
        self.runs = runs
        """The committed runs over the same inputs."""
        self.listed = listed
        self.reasons: Counter[str] = Counter()

    def new(self) -> Iterator[InputEntry]:
        """Stream the inputs that are to be labeled, in the order of the listing, and count why (the names are those of `InputChanges`)."""
        model, preprocess = self.fingerprints
        transient = sorted(status.value for status in TRANSIENT)
        for row in _rows(self.database, NEW, {"model": model, "preprocess": preprocess, "transient": transient}):
            self.reasons[row.pop("reason")] += 1
            yield InputEntry(**row)

    def vanished(self) -> pa.Table:
        """Return the uris that runs over the same inputs labeled, that are not listed now, and that no later run has recorded already."""
        return self.database.sql(GONE, params={"runs": self.runs}).to_arrow_table()


@contextlib.contextmanager
def open_failed(store: Store, statuses: Sequence[Status]) -> Iterator[Iterator[InputEntry]]:
    """Find the inputs whose newest row has one of the statuses, as their run's manifest has them (with a signed URL's signature)."""
    with open_database() as (database, _):
        create_ledger(database, store)
        yield _failed(database, store, sorted(status.value for status in statuses))


def _failed(database: duckdb.DuckDBPyConnection, store: Store, statuses: list[str]) -> Iterator[InputEntry]:
    runs = database.execute(FAILED_RUNS, {"statuses": statuses}).fetchall()
    for (run_id,) in runs:
        create_view(database, "manifest", store.data_uris(layout.manifest_folder(run_id)), schema.MANIFEST)
        yield from (InputEntry(**row) for row in _rows(database, FAILED, {"run": run_id, "statuses": statuses}))
        database.execute("DROP VIEW manifest")


def _rows(database: duckdb.DuckDBPyConnection, query: str, values: dict[str, object]) -> Iterator[dict[str, Any]]:
    for batch in database.sql(query, params=values).to_arrow_reader(FETCH_ROWS):
        yield from batch.to_pylist()


def _spool(listed: Iterable[InputEntry], folder: Path) -> tuple[int, list[str]]:
    """Write the listing to Parquet files, each uri with its `key`; at least one file, even if it is empty.

    Returns:
        The number of rows, and the files.
    """
    iterator = iter(listed)
    count = 0
    parts: list[str] = []
    while True:
        entries = list(islice(iterator, SPOOL_ROWS))
        if parts and not entries:
            return count, parts
        keys = pa.array([strip_credentials(entry.uri) for entry in entries], pa.string())
        table = manifest_table(entries, count).append_column(KEY, keys)
        parts.append(str(folder / f"listing-{count:012d}.parquet"))
        pq.write_table(table, parts[-1])
        count += len(entries)


def _create_vanished(database: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Create the views `recorded` and `vanished`: the inputs that committed runs have found gone."""
    runs = list(read_successes(store))
    records = [read_record(store, run_id) for run_id in runs]
    create_vanished_view(
        database, store, runs, [record.run_id for record in records if record and record.relabeled_from]
    )


def _runs_over(store: Store, inputs: list[str]) -> list[str]:
    """List the committed runs over these inputs."""
    return [
        run_id
        for run_id in store.names(layout.RUNS)
        if store.read(layout.success(run_id)) is not None
        and (store.read_json(layout.run_json(run_id)) or {}).get("config", {}).get("inputs") == inputs
    ]

"""Images that are gone: a run found them vanished, and no later run has labeled them again. Their rows stay in the table."""

from __future__ import annotations

from collections.abc import Collection

import duckdb
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.views import create_view

RECORDED = pa.schema([("uri", pa.string()), ("last_labeled_at", schema.TIMESTAMP)])
"""Columns of a run's list of vanished inputs."""
ROWS = """
    CREATE VIEW recorded_rows AS
    SELECT *, run_id NOT IN (SELECT run_id FROM relabelings) AS is_scored FROM all_rows SEMI JOIN recorded USING (uri)
"""
GONE = """
    CREATE VIEW vanished AS
    SELECT recorded.uri, max(recorded.last_labeled_at) AS last_labeled_at
    FROM recorded JOIN (
        SELECT uri, labeled_at, recency_rank,
               min(recency_rank) FILTER (is_scored) OVER (PARTITION BY uri) AS scored_rank
        FROM ranked('recorded_rows')
    ) AS image ON image.uri = recorded.uri AND image.labeled_at = recorded.last_labeled_at
    WHERE recency_rank <= coalesce(scored_rank, recency_rank)
    GROUP BY 1
"""
"""An image is gone if the row that was there when it was missed is its newest one, or only relabelings, which read no image, are newer."""
WITHOUT = "CREATE OR REPLACE VIEW labels AS SELECT * FROM newest('all_rows') ANTI JOIN vanished USING (uri)"


def create_vanished_view(
    database: duckdb.DuckDBPyConnection, store: Store, runs: Collection[str], relabeled: Collection[str]
) -> None:
    """Create the views `recorded` (what runs have found vanished) and `vanished` (what has not come back since), over `all_rows`.

    Args:
        runs: The committed runs.
        relabeled: Those of them that are relabelings.
    """
    lists = [
        store.data_uri(layout.vanished(run_id))
        for run_id in runs
        if layout.VANISHED in store.names(layout.run_folder(run_id))
    ]
    create_view(database, "recorded", lists, RECORDED)
    if lists:
        database.execute(
            "CREATE TABLE relabelings AS SELECT unnest($runs::VARCHAR[]) AS run_id", {"runs": list(relabeled)}
        )
        database.execute(ROWS)
        database.execute(GONE)
    else:
        create_view(database, "vanished", lists, RECORDED)


def leave_out_vanished(database: duckdb.DuckDBPyConnection) -> int:
    """Take the images that vanished out of the view `labels`, and what is built on it. Return their number."""
    database.execute(WITHOUT)
    ((count,),) = database.execute("SELECT count(*) FROM vanished SEMI JOIN all_rows USING (uri)").fetchall()
    return int(count)

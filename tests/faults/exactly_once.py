"""Exactly-once, checked by SQL over the files and not by our own `verify`."""

from __future__ import annotations

from pathlib import Path

import duckdb

from mlcls_ray.table import layout


def exactly_once(out: Path | str, run_id: str, rows: int) -> bool:
    """Manifest and label table hold the same row ids, each once, with the same uris."""
    run = f"{out}/{layout.run_folder(run_id)}"
    query = f"""
        SELECT count(*), count(DISTINCT label.row_id), count(manifest.row_id), count(*) FILTER (manifest.uri = label.uri)
        FROM read_parquet('{run}/labels/*.parquet') AS label
        FULL JOIN read_parquet('{run}/manifest/*.parquet') AS manifest USING (row_id)
    """
    return duckdb.sql(query).fetchall() == [(rows, rows, rows, rows)]

"""The index of a browser: the newest row of each image in a DuckDB file, where an image is a number.

Finding the newest rows takes seconds for a million images, and a page may wait for a part of one. So it is done once, at the start; what
runs commit later is seen when the index is built again. The page names images by their numbers in the index: it can ask for no other file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from mlcls_ray.errors import RunError
from mlcls_ray.table.corrected import create_corrections
from mlcls_ray.table.corrections import correction_files, read_corrections, translate
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.sql import quoted
from mlcls_ray.table.views import query_rows

MEMORY_LIMIT = "2GB"
IMAGES = """
    CREATE TABLE browse.images AS
    SELECT (row_number() OVER () - 1)::INTEGER AS id, uri, status, error_message, width, height, format, content_hash, image.run_id,
           labeled_at, labels, scores, all_scores,
           list_min(list_transform(all_scores, lambda score, place: abs(score - limits[place])))::FLOAT AS margin,
           embedding IS NOT NULL AS has_embedding
    FROM labels AS image LEFT JOIN limits ON limits.run_id = image.run_id
"""
"""`margin`: how near the nearest score of an image is to the threshold of its class."""
LIMITS = """
    CREATE TABLE limits AS
    SELECT run_id, list(CASE WHEN label IS NOT NULL THEN threshold END ORDER BY class_id) AS limits FROM thresholds GROUP BY run_id
"""
"""`limits`: the threshold of each class, null for one that gives no label."""
CORRECTED_IMAGES = """
    CREATE TABLE corrected_images (
        id INTEGER, verdict VARCHAR, corrected_labels VARCHAR[], corrected_by VARCHAR, corrected_at TIMESTAMPTZ, corrected_run VARCHAR
    )
"""
SHOWN = """
    CREATE VIEW shown AS
    SELECT image.* EXCLUDE (labels, scores), image.labels AS model_labels, image.scores AS model_scores,
           CASE WHEN verdict = 'labeled' THEN corrected_labels ELSE image.labels END AS labels,
           verdict, corrected_by, corrected_at, corrected_run
    FROM browse.images AS image LEFT JOIN corrected_images USING (id)
"""
UPDATED = """
    INSERT INTO corrected_images
    SELECT image.id, verdict, corrected_labels, corrected_by, corrected_at, seen_run
    FROM corrected_of('{view}') AS correction JOIN browse.images AS image
      ON image.uri = correction.uri AND image.content_hash IS NOT DISTINCT FROM correction.content_hash AND image.status = 'ok'
"""
TAKE = (
    "INSERT INTO corrections SELECT * FROM new_corrections ANTI JOIN corrections USING (correction_id, uri)",
    "CREATE TEMP TABLE touched AS SELECT id, uri FROM browse.images SEMI JOIN new_corrections USING (uri)",
    "CREATE TEMP VIEW touched_corrections AS SELECT * FROM corrections SEMI JOIN touched USING (uri)",
    "DELETE FROM corrected_images WHERE id IN (SELECT id FROM touched)",
    UPDATED.format(view="touched_corrections"),
)
"""Take `new_corrections` in: what counts is computed again for the images that they are about."""


Places = tuple[tuple[int, float], ...]
"""The place (from 1) in a run's vocabulary and the threshold of each class of a label; several where a label map merges them."""


class Index:
    """The newest rows of a label table, and the corrections. Its methods may be called from several threads."""

    def __init__(self, table: LabelTable, others: Mapping[str, LabelTable]) -> None:
        """Build the index of a table.

        Args:
            table: The label table; its database becomes that of the index.
            others: Further outputs whose newest rows can be compared with it, by name.

        Raises:
            RunError: the temporary folder has no room for it.
        """
        self.table = table
        self.others = others
        self.folder = tempfile.TemporaryDirectory(prefix="mlcls-browse-")
        folder = Path(self.folder.name)
        database = table.database
        database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        database.execute(f"SET temp_directory = {quoted(str(folder / 'spilled'))}")
        database.execute(f"ATTACH {quoted(str(folder / 'index.duckdb'))} AS browse")
        try:
            database.execute(LIMITS)
            database.execute(IMAGES)
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise RunError(
                f"the index does not fit into '{folder.parent}' ({error}): set TMPDIR to a larger disk"
            ) from None
        database.execute(CORRECTED_IMAGES)
        database.execute(SHOWN)
        self.files = set(correction_files(table.store))
        """The files of corrections that the index has read."""
        create_corrections(database, translate(read_corrections(table.store, sorted(self.files)), table.records))
        database.execute(UPDATED.format(view="corrections"))
        ((self.rows, self.has_embeddings),) = database.execute(
            "SELECT count(*), coalesce(bool_or(has_embedding), false) FROM browse.images"
        ).fetchall()
        runs = {run_id for (run_id,) in database.execute("SELECT DISTINCT run_id FROM browse.images").fetchall()}
        self.records = {run_id: record for run_id, record in table.records.items() if run_id in runs}
        """The records of the runs that the newest rows are of."""
        self.has_all_records = len(self.records) == len(runs)
        self.labels = sorted({label for record in self.records.values() for label in record.label_thresholds})
        """All labels that these runs can give."""
        self.maps = {run_id: record.resolved_map for run_id, record in self.records.items()}
        """The label of each class, by run."""

    def close(self) -> None:
        """Remove the index's file."""
        self.table.database.close()
        self.folder.cleanup()

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection for one thread."""
        cursor = self.table.database.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def query(self, query: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Run a query with named parameters; returns each row as a dict."""
        with self.cursor() as cursor:
            return query_rows(cursor, query, values)

    def places_of(self, label: str) -> dict[str, Places]:
        """Return the places of a label's classes, by run, for the runs that can give it."""
        places = {}
        for run_id, record in self.records.items():
            limits = zip(self.maps[run_id].names, record.thresholds.values(), strict=True)
            found = tuple((place, limit) for place, (name, limit) in enumerate(limits, start=1) if name == label)
            if found:
                places[run_id] = found
        return places


def take_new_corrections(index: Index) -> list[int]:
    """Read the files of corrections that others have written since; returns the ids of the images concerned.

    Raises:
        UsageError: a file is damaged, or holds something else.
    """
    names = set(correction_files(index.table.store)) - index.files
    if not names:
        return []
    rows = translate(read_corrections(index.table.store, sorted(names)), index.table.records)
    ids = add_corrections(index, rows)
    index.files |= names
    return ids


def add_corrections(index: Index, rows: pa.Table) -> list[int]:
    """Take rows in the schema `CORRECTIONS` into the index; returns the ids of the images concerned. A row that is there is left out.

    Callers must not run it at the same time.
    """
    with index.cursor() as cursor:
        cursor.register("new_corrections", rows)
        cursor.execute("BEGIN")
        for statement in TAKE:
            cursor.execute(statement)
        ids = [number for (number,) in cursor.execute("SELECT id FROM touched").fetchall()]
        cursor.execute("COMMIT")
    return ids

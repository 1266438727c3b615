"""Several label tables as one: one row per uri, with the labels of all of them. Rows are read only when they are queried.

Each output has a schema of its own in one DuckDB database, with all views of a label table; the merged ones are built on these.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from duckdb import DuckDBPyConnection, connect

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.uris import is_local, path_of_uri, redact_url
from mlcls_ray.table.label_table import LabelTable, open_one
from mlcls_ray.table.opened import OpenedTable
from mlcls_ray.table.sql import identifier, quoted

RESERVED = {"main", "temp", "system", "information_schema", "pg_catalog"}
"""Schemas that DuckDB has already."""
UNITED = {"source_labels": "labels", "all_rows": "all_rows", "scores": "scores", "thresholds": "thresholds"}
"""Views with the rows of all outputs and the column `source`, and the view of each output that they come from."""
LABELS = """
    CREATE VIEW labels AS
    WITH images AS (
        SELECT uri,
               arg_min(
                   struct_pack(status, error_message, width, height, format, content_hash),
                   source_place + CASE WHEN status = 'ok' THEN 0 ELSE 1000000 END
               ) AS image,
               flatten(list(list_transform(labels, lambda label, place: struct_pack(
                   "order" := -coalesce(scores[place], -1), source_place := source_place, label := label, score := scores[place],
                   source := source
               ))) FILTER (status = 'ok')) AS given,
               map_from_entries(list(struct_pack(
                   k := source, v := struct_pack(status, labels, scores, model, run_id)
               ) ORDER BY source_place)) AS by_source
        FROM placed GROUP BY uri
    ),
    sorted AS (SELECT *, list_sort(given) AS ordered, list_transform(list_sort(given), lambda one: one.label) AS names FROM images),
    chosen AS (SELECT *, list_filter(ordered, lambda one, place: list_position(names, one.label) = place) AS best FROM sorted)
    SELECT uri, image.status AS status, image.error_message AS error_message, image.width AS width, image.height AS height,
           image.format AS format, image.content_hash AS content_hash, list_transform(best, lambda one: one.label) AS labels,
           list_transform(best, lambda one: one.score) AS scores, list_transform(best, lambda one: one.source) AS sources, by_source
    FROM chosen
"""
"""An image is `ok` if it is in one of the outputs; what is not its labels comes from the first such output. A label that several give has
the greatest score, and of equal ones that of the first output."""


class MergedTable(OpenedTable):
    """The label tables of several outputs, or of several models of one job, in one DuckDB database.

    A source is an output; its name is its folder's (with as many folders above it as tell it from the others). Views for `sql`:

    - `labels`: one row per uri. `labels` are those of all sources, best first; `scores` the greatest score of each; `sources` the source
      that gave it. `by_source['NAME']` has the `status`, `labels`, `scores`, `model` and `run_id` of one source, or is null.
    - `source_labels`, `all_rows`, `scores`, `thresholds`: as in a `LabelTable`, of all sources, with the column `source`.
      `source_labels` has the newest row of each uri and source, with all columns.
    - `"NAME".labels` and so on: the views of one source.
    """

    def __init__(self, database: DuckDBPyConnection, sources: dict[str, LabelTable]) -> None:
        """Build the merged views on the schemas of the sources, which are named as they are."""
        first = next(iter(sources.values()))
        super().__init__(database, first.s3)
        self.sources = sources
        self.left_out = sum(table.left_out for table in sources.values())
        """The number of vanished images that are not in `labels`, of all sources."""
        for view, of_source in UNITED.items():
            database.execute(f"CREATE VIEW {view} AS {_union(sources, of_source)}")
        database.execute(f"CREATE VIEW placed AS {_union(sources, 'labels', is_placed=True)}")
        database.execute(LABELS)

    def __repr__(self) -> str:
        return f"MergedTable({', '.join(map(repr, self.sources.values()))})"


def open_merged(outs: Sequence[str], s3: S3Options | None, vanished: bool, corrected: bool) -> MergedTable:
    """Open several outputs. Raises as `open_labels`."""
    if not outs:
        raise UsageError("give at least one output")
    places: dict[str, str] = {}
    for out in outs:
        place = os.path.realpath(path_of_uri(out)) if is_local(out) else out.rstrip("/")
        if place in places:
            raise UsageError(
                f"'{redact_url(places[place])}' and '{redact_url(out)}' are one output: give each output once"
            )
        places[place] = out
    database = connect()
    sources: dict[str, LabelTable] = {}
    for name, out in zip(source_names(list(places)), outs, strict=True):
        schema = identifier(name)
        connection = database.cursor()
        connection.execute(f"CREATE SCHEMA {schema}; USE {schema}")
        sources[name] = open_one(out, s3, None, vanished, corrected, connection)
    return MergedTable(database, sources)


def source_names(places: Sequence[str]) -> list[str]:
    """Name each output by its folder, with as many folders above as it takes for names that differ in more than case."""
    parts = [place.rstrip("/").split("/") for place in places]
    names = list(places)
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        folded = {name.casefold() for name in names}
        if len(folded) == len(names) and not folded & RESERVED:
            break
    else:
        names = [f"{number}:{name}" for number, name in enumerate(names, start=1)]  # paths that differ in case only
    return names


def _union(sources: dict[str, LabelTable], view: str, is_placed: bool = False) -> str:
    rows = []
    for place, name in enumerate(sources):
        more = f", {place} AS source_place" if is_placed else ""
        rows.append(f"SELECT {quoted(name)} AS source{more}, * FROM {identifier(name)}.{view}")  # noqa: S608
    return " UNION ALL BY NAME ".join(rows)

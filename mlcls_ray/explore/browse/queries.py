"""The questions of the page to the index: a page of images, counts, one image, and what another threshold would change."""

from __future__ import annotations

import re
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import duckdb

from mlcls_ray.errors import UsageError
from mlcls_ray.explore.browse.filters import Filter, Where, as_sql, score_of
from mlcls_ray.explore.browse.index import Index
from mlcls_ray.table.example import labeled_example
from mlcls_ray.table.search import find_alike
from mlcls_ray.table.sql import quoted

PAGE = 60
MAX_PAGE = 200
ALIKE = 500
"""Images that are looked for by likeness."""
KEPT_TABLES = 8
"""Tables of compared runs, and of likeness, that are kept."""
EXAMPLES = 12
"""Pictures of what another threshold would change, of each kind."""
MAX_IDS = 100_000
"""Images that one action may be about."""
COLUMNS = (
    "id, uri, status, error_message, model_labels, model_scores, labels, verdict, corrected_by, corrected_run, run_id"
)


FETCH_ROWS = 100_000
PARAMETER = re.compile(r"\$(\w+)")


class Counts(NamedTuple):
    """The number of images that a filter shows, and of these the number with each label and status."""

    images: int
    labels: dict[str, int]
    statuses: dict[str, int]


class Preview(NamedTuple):
    """The changes in the model's labels by another threshold of a class. `gained` and `lost`: ids, nearest to the new threshold first."""

    label: str
    before: int
    after: int
    gained_count: int
    lost_count: int
    gained: list[int]
    lost: list[int]


class Queries:
    """The queries over one index. Its methods may be called from several threads."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._made: OrderedDict[tuple[Any, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, chosen: Filter, after: int | None = None, size: int = PAGE) -> list[dict[str, Any]]:
        """Return the next images after the one with the id `after`; each page costs the same, however far it is."""
        with self._as_sql(chosen) as where:
            condition, values = where.condition, {**where.values, "size": min(size, MAX_PAGE)}
            if after is not None:
                values["after"] = after
                last = f"(SELECT {where.key} FROM shown {where.joins} WHERE id = $after)"
                condition += f" AND ({where.key} > {last} OR ({where.key} = {last} AND id > $after))"
            return self._query(
                f"SELECT {COLUMNS} FROM shown {where.joins} WHERE {condition} ORDER BY {where.key}, id LIMIT $size",
                values,
            )

    def items(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return some images as a page has them."""
        query = f"SELECT {COLUMNS} FROM shown WHERE id IN (SELECT unnest($ids::INTEGER[])) ORDER BY id"
        return self._query(query, {"ids": list(ids)[:MAX_PAGE]})

    def counts(self, chosen: Filter) -> Counts:
        """Count the images of a filter, and their labels."""
        with self._as_sql(chosen) as where:
            images = f"(SELECT labels, status FROM shown {where.joins} WHERE {where.condition})"
            statuses = self._query(
                f"SELECT status, count(*) AS images FROM {images} GROUP BY 1 ORDER BY 2 DESC, 1",
                where.values,
            )
            labels = self._query(
                f"SELECT label, count(*) AS images FROM (SELECT unnest(labels) AS label FROM {images}) GROUP BY 1 ORDER BY 2 DESC, 1",
                where.values,
            )
        by_status = {row["status"]: row["images"] for row in statuses}
        return Counts(sum(by_status.values()), {row["label"]: row["images"] for row in labels}, by_status)

    def ids(self, chosen: Filter) -> list[int]:
        """Return the ids of all labeled images of a filter.

        Raises:
            UsageError: they are more than one action may be about.
        """
        with self._as_sql(chosen) as where:
            rows = self._query(
                f"SELECT id FROM shown {where.joins} WHERE status = 'ok' AND {where.condition} LIMIT {MAX_IDS + 1}",
                where.values,
            )
        if len(rows) > MAX_IDS:
            raise UsageError(f"more than {MAX_IDS:,} images match: narrow the filter first")
        return [row["id"] for row in rows]

    def image(self, number: int) -> dict[str, Any] | None:
        """Return everything about one image, with the score and threshold of each class that was kept; None if there is no such id."""
        query = "SELECT * FROM shown WHERE id = $id"
        rows = self._query(query, {"id": number})
        if not rows:
            return None
        row = rows[0]
        record = self.index.records.get(row["run_id"])
        thresholds = record.label_thresholds if record else {}
        names = record.resolved_map.names if record else ()
        scores: dict[str, float] = {}
        for name, score in zip(names, row.pop("all_scores") or [None] * len(names), strict=True):
            if name is not None and score is not None:
                scores[name] = max(score, scores.get(name, 0.0))
        exact = dict(zip(row["model_labels"] or [], row["model_scores"] or [], strict=True))
        row["classes"] = sorted(
            (
                {"label": label, "score": score, "threshold": thresholds[label]}
                for label, score in {**scores, **exact}.items()
                if label in thresholds
            ),
            key=lambda entry: -entry["score"],
        )
        return row

    def preview(self, label: str, threshold: float) -> Preview:
        """Say what another threshold of a class would change, over all images, as `mlcls relabel` would.

        Raises:
            UsageError: no run has the class.
        """
        values: dict[str, Any] = {"threshold": threshold, "label": label}
        score = score_of(self.index, label, values, "class")
        images = f"""
            (SELECT id, {score} AS score, list_contains(model_labels, $label) AS had, {score} > $threshold::FLOAT AS has
             FROM shown WHERE status = 'ok')
        """
        (row,) = self._query(
            f"""
            SELECT count(*) FILTER (had) AS before, count(*) FILTER (has) AS after,
                   count(*) FILTER (has AND NOT had) AS gained_count, count(*) FILTER (had AND NOT has) AS lost_count,
                   coalesce(arg_min(id, abs(score - $threshold), {EXAMPLES}) FILTER (has AND NOT had), []) AS gained,
                   coalesce(arg_min(id, abs(score - $threshold), {EXAMPLES}) FILTER (had AND NOT has), []) AS lost
            FROM {images}
            """,
            values,
        )
        return Preview(label=label, **row)

    def _query(self, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a query with those of the values that it names: DuckDB refuses others."""
        named = set(PARAMETER.findall(query))
        return self.index.query(query, {name: value for name, value in values.items() if name in named})

    @contextmanager
    def _as_sql(self, chosen: Filter) -> Iterator[Where]:
        """Write a filter as SQL, and make the tables that it needs."""
        joined = {}
        if chosen.differ is not None:
            joined["differ"] = self._table(("differ", *sorted(chosen.differ)), self._fill_differing)
        if chosen.alike is not None:
            joined["alike"] = self._table(("alike", chosen.alike), self._fill_alike)
        yield as_sql(chosen, self.index, joined)

    def _table(self, key: tuple[Any, ...], fill: Any) -> str:
        """Return the name of a table that was made for a filter, and make it if it is not there."""
        with self._lock:
            if key not in self._made:
                name = f"made_{uuid.uuid4().hex}"
                with self.index.cursor() as cursor:
                    fill(cursor, name, *key[1:])
                    self._made[key] = name
                    if len(self._made) > KEPT_TABLES:
                        _, oldest = self._made.popitem(last=False)
                        cursor.execute(f"DROP TABLE {oldest}")
            self._made.move_to_end(key)
            return self._made[key]

    def _fill_differing(self, cursor: duckdb.DuckDBPyConnection, name: str, first: str, second: str) -> None:
        for place, side in (("first_side", first), ("second_side", second)):
            if other := self.index.others.get(side):
                cursor.register(place, other.sql("SELECT uri, labels FROM labels").to_arrow_reader(FETCH_ROWS))
            else:
                cursor.execute(
                    f"CREATE TEMP VIEW {place} AS SELECT uri, labels FROM all_rows WHERE run_id = {quoted(side)}"
                )
        cursor.execute(
            f"""
            CREATE TABLE {name} AS SELECT image.id FROM browse.images AS image
            JOIN first_side AS first USING (uri) JOIN second_side AS second USING (uri)
            WHERE list_sort(coalesce(first.labels, [])) <> list_sort(coalesce(second.labels, []))
            """
        )

    def _fill_alike(self, cursor: duckdb.DuckDBPyConnection, name: str, number: int) -> None:
        rows = self.index.query("SELECT uri FROM browse.images WHERE id = $id", {"id": number})
        if not rows:
            raise UsageError("this image is not in the index")
        uri = rows[0]["uri"]
        example = labeled_example(cursor, uri)
        if example is None:
            raise UsageError(f"'{uri}' has no embedding: label with --embeddings")
        matches = find_alike(cursor, example, [], [], -1.0, ALIKE)
        cursor.execute(f"CREATE TABLE {name} (id INTEGER, cosine FLOAT)")
        values = {
            "uris": [uri, *(uri for uri, _ in matches)],
            "cosines": [1.0, *(cosine for _, cosine in matches)],
        }
        cursor.execute(
            f"""
            INSERT INTO {name} SELECT id, cosine FROM browse.images
            JOIN (SELECT unnest($uris::VARCHAR[]) AS uri, unnest($cosines::FLOAT[]) AS cosine) USING (uri)
            """,
            values,
        )

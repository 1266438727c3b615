"""Count what a drift is judged by, in DuckDB over the columns that are needed. What comes back is small, whatever the size of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import duckdb
from pydantic import BaseModel, ConfigDict

from mlcls_ray.storage.store import Store
from mlcls_ray.table.drift.runs import Compared, Run
from mlcls_ray.table.fragments import fragment_paths
from mlcls_ray.table.views import create_view, open_database, query_rows

BINS = 10
"""Bins of a histogram of scores, from 0 to 1. One more counts the scores that were not kept."""
MOST_LABELS = 5
"""Images with so many labels or more are counted together."""
MOST_IMAGES = 1_000_000
"""Images of either side that are read, about: a night's check must not read a hundred million."""
SCORED_IMAGES = 200_000
"""Images of either side, about, whose scores of all classes go into the histograms: 16 million scores for 80 classes."""
KINDS = 10
"""Kinds of errors that are kept."""

CUTS = "CREATE TABLE cuts (run_id VARCHAR, thresholds FLOAT[])"
COMPARED = """
    CREATE OR REPLACE VIEW compared AS
    SELECT run_id = (SELECT run_id FROM this_run) AS is_now, run_id, uri, status, error_message, attempts, width, height, all_scores,
           CASE
             WHEN thresholds IS NULL OR all_scores IS NULL THEN class_ids
             ELSE list_filter(
               range(len(all_scores))::SMALLINT[],
               lambda id: coalesce(scores[list_position(class_ids, id)], all_scores[id + 1]) > thresholds[id + 1]
             )
           END AS class_ids
    FROM all_rows LEFT JOIN cuts USING (run_id)
"""
"""The rows of all runs, each with the classes that it has at the thresholds of the run that is looked at, and without a label map."""
HISTOGRAMS = """
    SELECT is_now, class_id, count(*) AS scores,
           CASE WHEN score IS NULL THEN $bins ELSE least(floor(score * $bins), $bins - 1) END::INT AS bin
    FROM (
        SELECT is_now, unnest(all_scores) AS score, generate_subscripts(all_scores, 1) - 1 AS class_id
        FROM compared WHERE status = 'ok' AND hash(uri) % CASE WHEN is_now THEN $step_now ELSE $step_before END = 0
    ) GROUP BY ALL
"""
LABELS = """
    SELECT is_now, class_id, count(*) AS images FROM (SELECT is_now, unnest(class_ids) AS class_id FROM compared) GROUP BY ALL
"""
LABELS_PER_IMAGE = """
    SELECT is_now, least(len(class_ids), $count)::INT AS labels, count(*) AS images FROM compared WHERE status = 'ok' GROUP BY ALL
"""
STATUSES = "SELECT is_now, status, count(*) AS images FROM compared WHERE attempts <= 1 GROUP BY ALL"
ERRORS = r"""
    SELECT status, kind AS message, count(*) FILTER (NOT is_now) AS before, count(*) FILTER (is_now) AS now
    FROM (
        SELECT is_now, status, regexp_replace(
            regexp_replace(coalesce(error_message, ''), '''[^'']*''|"[^"]*"|\S*/\S*|\S+\.[a-z]{2,}\b', '…', 'g'), '\d+', 'N', 'g'
        )[:100] AS kind
        FROM compared WHERE status <> 'ok' AND attempts <= 1
    )
    GROUP BY ALL ORDER BY now DESC, before DESC, status, message LIMIT $count
"""
"""Names and numbers differ from message to message: without them a few kinds remain."""
RUNS = """
    SELECT run_id, count(*) AS images, count(*) FILTER (status = 'ok') AS ok,
           count(*) FILTER (status = 'ok' AND len(class_ids) = 0) AS unlabeled,
           avg(len(class_ids)) AS labels_per_image,
           approx_quantile(width::BIGINT * height, 0.5) / 1e6 AS megapixels
    FROM compared GROUP BY ALL
"""


class ErrorKind(BaseModel):
    """A status with a kind of message (`…` for names, `N` for numbers), and how many inputs had it."""

    model_config = ConfigDict(frozen=True)

    status: str
    message: str
    before: int
    now: int


class RunCounts(BaseModel):
    """One run in numbers. `images` to `megapixels` are of the rows that were read: of a very large run, a part.

    `labels_per_image` (a mean) and `megapixels` (a median) are None where no image was labeled. `listed` to `retried` are None where
    the job was not incremental. `left_out` counts files that are no images by their names.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    started_at: datetime
    rows: int
    images: int
    ok: int
    unlabeled: int
    labels_per_image: float | None
    megapixels: float | None
    listed: int | None
    new: int | None
    changed: int | None
    retried: int | None
    left_out: int


class Sides(NamedTuple):
    """The counts of one distribution, before and now."""

    before: list[int]
    now: list[int]


class Counts(NamedTuple):
    """The counts of both sides, by class id where they are of classes.

    `scores`: histograms over `BINS` bins and one for what was not kept; empty if no scores were kept. `labels`: images that have the
    label. `labels_per_image`: images by their number of labels, from 0 to `MOST_LABELS`. `statuses`: inputs that were tried for the
    first time.
    """

    scores: dict[int, Sides]
    labels: dict[int, Sides]
    labels_per_image: Sides
    statuses: dict[str, Sides]
    errors: list[ErrorKind]
    runs: list[RunCounts]
    is_sampled: bool

    @property
    def tried(self) -> Sides:
        """The inputs that were tried for the first time."""
        return Sides(*([sum(sides[side][0] for sides in self.statuses.values())] for side in (0, 1)))


def count_rows(store: Store, compared: Compared, most_images: int = MOST_IMAGES) -> Counts:
    """Count the rows of both sides. Of a side with more than `most_images` rows every n-th file is read, which are in the inputs' order."""
    files, are_all = _files(store, compared, most_images)
    with open_database() as (database, _):
        store.register_with(database)
        create_view(database, "all_rows", files)
        create_compared(database, compared)
        before, now = (sum(run.success.rows for run in runs) for runs in (compared.before, [compared.now]))
        values = {
            "bins": BINS,
            "step_before": max(min(before, most_images) // SCORED_IMAGES, 1),
            "step_now": max(min(now, most_images) // SCORED_IMAGES, 1),
        }
        return Counts(
            scores=_sides(query_rows(database, HISTOGRAMS, values), "class_id", "bin", "scores", BINS + 1),
            labels=_sides(query_rows(database, LABELS, {}), "class_id", None, "images", 1),
            labels_per_image=_sides(
                query_rows(database, LABELS_PER_IMAGE, {"count": MOST_LABELS}),
                None,
                "labels",
                "images",
                MOST_LABELS + 1,
            ).get(None, Sides([0] * (MOST_LABELS + 1), [0] * (MOST_LABELS + 1))),
            statuses=_sides(query_rows(database, STATUSES, {}), "status", None, "images", 1),
            errors=[ErrorKind(**row) for row in query_rows(database, ERRORS, {"count": KINDS})],
            runs=_runs(database, [*compared.before, compared.now]),
            is_sampled=not are_all,
        )


def create_compared(database: duckdb.DuckDBPyConnection, compared: Compared) -> None:
    """Create the view `compared`, over `all_rows`."""
    now = compared.now.record
    thresholds = list(now.thresholds.values())
    database.execute(CUTS)
    for run in (*compared.before, compared.now):
        if run.record.threshold_id != now.threshold_id or run.record.label_map:
            database.execute(
                "INSERT INTO cuts VALUES ($run, $thresholds)", {"run": run.record.run_id, "thresholds": thresholds}
            )
    database.execute("CREATE TABLE this_run AS SELECT $run AS run_id", {"run": now.run_id})
    database.execute(COMPARED)


def _files(store: Store, compared: Compared, most_images: int) -> tuple[list[str], bool]:
    """List the files to read, and tell whether these are all."""
    files, are_all = list[str](), True
    for runs in (compared.before, [compared.now]):
        step = -(-sum(run.success.rows for run in runs) // most_images)
        for run in runs:
            paths = fragment_paths(store, run.success)
            files += [store.data_uri(path) for path in paths[:: max(step, 1)]]
            are_all = are_all and (step <= 1 or len(paths) == 1)
    return files, are_all


def _sides(
    rows: Iterable[dict[str, Any]], key: str | None, place: str | None, count: str, size: int
) -> dict[Any, Sides]:
    """Sort counts by the column `key`, and within it by the column `place`, from 0 to `size`."""
    found: dict[Any, Sides] = {}
    for row in rows:
        sides = found.setdefault(row[key] if key else None, Sides([0] * size, [0] * size))
        (sides.now if row["is_now"] else sides.before)[row[place] if place else 0] = row[count]
    return found


def _runs(database: duckdb.DuckDBPyConnection, runs: Sequence[Run]) -> list[RunCounts]:
    """Count each run; one of whose rows none were read has zeros."""
    counted = {row.pop("run_id"): row for row in query_rows(database, RUNS, {})}
    nothing = {"images": 0, "ok": 0, "unlabeled": 0, "labels_per_image": None, "megapixels": None}
    return [
        RunCounts(
            run_id=record.run_id,
            started_at=record.created_at,
            rows=success.rows,
            **counted.get(record.run_id, nothing),
            **{
                name: getattr(record.changes, name) if record.changes else None
                for name in ("listed", "new", "changed", "retried")
            },
            left_out=sum(record.left_out.values()),
        )
        for record, success in runs
    ]

"""What a label table says in numbers: DuckDB counts out of core, what comes back is small whatever the corpus."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from mlcls_ray import schema
from mlcls_ray.errors import Status
from mlcls_ray.storage.uris import HTTP
from mlcls_ray.table.label_table import THRESHOLDS, LabelTable
from mlcls_ray.table.views import LABELS

BINS = 20
"""Of a histogram of scores, from 0 to 1."""
SAMPLE_ROWS = 100_000
"""Rows whose scores of all classes are counted: 8 M scores for 80 classes."""
PAIRS, BUCKETS, HOSTS = 20, 60, 20


class Label(NamedTuple):
    """One class: images that have the label, their mean score, its threshold in the newest run, and how many scores of (a sample of) all
    images lie in each of 20 bins.
    """

    name: str
    images: int
    mean_score: float
    threshold: float | None
    scores: list[int]


class Pair(NamedTuple):
    """Two labels on one image. `lift`: how much more often than if they were independent."""

    first: str
    second: str
    images: int
    lift: float


class Run(NamedTuple):
    """One committed run; `per_s` images per second with the start of its workers, None where nothing was scored."""

    run_id: str
    committed_at: datetime
    model: str
    engine: str
    rows: int
    failed: int
    per_s: float | None
    is_relabeled: bool


class Facts(NamedTuple):
    """`statuses`: rows by status. `labels_per_image`: images by number of labels. `throughput`: (seconds since the first row, images per
    second) over the newest run that scored. `hosts`: failed rows by status and server (or `local`, `s3`).
    """

    rows: int
    statuses: dict[str, int]
    labels: list[Label]
    pairs: list[Pair]
    labels_per_image: dict[int, int]
    runs: list[Run]
    throughput: list[tuple[float, float]]
    hosts: list[tuple[str, str, int]]
    sampled: int


def gather_facts(table: LabelTable) -> Facts:
    """All of it, in a handful of passes over the columns that each needs."""
    statuses = dict(_rows(table, f"SELECT {schema.STATUS}, count(*) FROM {LABELS} GROUP BY 1 ORDER BY 2 DESC, 1"))
    rows = sum(statuses.values())
    labels = _labels(table, rows)
    runs = _runs(table)
    per_image = _rows(
        table, f"SELECT len({schema.LABELS}), count(*) FROM {LABELS} WHERE {schema.STATUS} = 'ok' GROUP BY 1 ORDER BY 1"
    )
    return Facts(
        rows=rows,
        statuses=statuses,
        labels=labels,
        pairs=_pairs(table, {one.name: one.images for one in labels}, statuses.get(Status.OK.value, 0)),
        labels_per_image=dict(per_image),
        runs=runs,
        throughput=_throughput(table, runs),
        hosts=_hosts(table),
        sampled=min(rows, SAMPLE_ROWS),
    )


def _rows(table: LabelTable, query: str, *values: Any) -> list[Any]:
    return table.database.execute(query, list(values) or None).fetchall()


def _labels(table: LabelTable, rows: int) -> list[Label]:
    counted = _rows(
        table,
        "SELECT label, count(*), avg(score) FROM "
        f"(SELECT unnest({schema.LABELS}) AS label, unnest({schema.SCORES}) AS score FROM {LABELS}) GROUP BY 1 ORDER BY 2 DESC, 1",
    )
    thresholds = table.newest.thresholds
    histograms = score_histograms(table, rows)
    found = {name: (count, mean) for name, count, mean in counted}
    names = [*found, *(name for name in thresholds if name not in found)]
    return [
        Label(name, *found.get(name, (0, 0.0)), thresholds.get(name), histograms.get(name, [0] * BINS))
        for name in names
    ]


def score_histograms(table: LabelTable, rows: int) -> dict[str, list[int]]:
    """Label → how many scores of all images (of a sample, where there are many) lie in each bin. Empty where they were not kept."""
    sample = f"USING SAMPLE reservoir({SAMPLE_ROWS} ROWS) REPEATABLE (0)" if rows > SAMPLE_ROWS else ""
    counted = _rows(
        table,
        f"""
        WITH sampled AS (SELECT {schema.RUN_ID}, {schema.ALL_SCORES} AS scores FROM {LABELS}
            WHERE {schema.ALL_SCORES} IS NOT NULL {sample}),
        scored AS (SELECT {schema.RUN_ID}, unnest(scores) AS score, generate_subscripts(scores, 1) - 1 AS class_id FROM sampled)
        SELECT label, least(floor(score * {BINS}), {BINS - 1})::INT AS bin, count(*)
        FROM scored JOIN {THRESHOLDS} USING ({schema.RUN_ID}, class_id) WHERE score IS NOT NULL GROUP BY 1, 2
        """,
    )
    histograms: dict[str, list[int]] = {}
    for label, place, count in counted:
        histograms.setdefault(label, [0] * BINS)[place] = count
    return histograms


def _pairs(table: LabelTable, images: dict[str, int], total: int) -> list[Pair]:
    counted = _rows(
        table,
        f"""
        SELECT first, second, count(*) FROM (
            SELECT first, unnest({schema.LABELS}) AS second
            FROM (SELECT unnest({schema.LABELS}) AS first, {schema.LABELS} FROM {LABELS} WHERE len({schema.LABELS}) > 1)
        ) WHERE first < second GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {PAIRS}
        """,
    )
    return [Pair(one, two, count, count * total / (images[one] * images[two])) for one, two, count in counted]


def _runs(table: LabelTable) -> list[Run]:
    found = []
    for run_id, success in table.successes.items():
        record = table.records.get(run_id)
        is_relabeled = bool(record and record.relabeled_from)
        found.append(
            Run(
                run_id=run_id,
                committed_at=success.committed_at,
                model=record.model if record else "",
                engine=f"{record.engine.engine} {record.engine.precision}" if record and record.engine else "",
                rows=success.rows,
                failed=success.rows - success.statuses.get(Status.OK.value, 0),
                per_s=success.rows / success.seconds if success.seconds and success.rows and not is_relabeled else None,
                is_relabeled=is_relabeled,
            )
        )
    return sorted(found, key=lambda run: run.committed_at, reverse=True)


def _throughput(table: LabelTable, runs: list[Run]) -> list[tuple[float, float]]:
    scored = [run for run in runs if not run.is_relabeled and run.rows]
    if not scored:
        return []
    (span,) = _rows(
        table,
        f"SELECT epoch(max({schema.LABELED_AT}) - min({schema.LABELED_AT})) FROM all_rows WHERE {schema.RUN_ID} = ?",
        scored[0].run_id,
    )
    width = max(span[0] / BUCKETS, 1.0)
    return [
        (bucket * width, count / width)
        for bucket, count in _rows(
            table,
            f"""
            SELECT floor(epoch({schema.LABELED_AT} - (SELECT min({schema.LABELED_AT}) FROM all_rows WHERE {schema.RUN_ID} = $1)) / $2)::INT,
                   count(*) FROM all_rows WHERE {schema.RUN_ID} = $1 GROUP BY 1 ORDER BY 1
            """,
            scored[0].run_id,
            width,
        )
    ]


def _hosts(table: LabelTable) -> list[tuple[str, str, int]]:
    schemes = "|".join(HTTP)
    return _rows(
        table,
        f"""
        SELECT {schema.STATUS}, CASE
            WHEN regexp_matches({schema.URI}, '^({schemes})://') THEN regexp_extract({schema.URI}, '://([^/?#]+)', 1)
            WHEN contains({schema.URI}, '://') THEN split_part({schema.URI}, '://', 1) ELSE 'local' END, count(*)
        FROM {LABELS} WHERE {schema.STATUS} <> 'ok' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {HOSTS}
        """,
    )

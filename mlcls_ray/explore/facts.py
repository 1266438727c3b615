"""Count what a report shows: DuckDB counts out of core, and the results are small whatever the size of the table."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from mlcls_ray.errors import Status
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.records import in_order

BINS = 20
"""Bins of a histogram of scores, from 0 to 1."""
SAMPLE_ROWS = 100_000
"""Images, about, whose scores of all classes go into the histograms: 8 million scores for 80 classes."""
PAIRS, BUCKETS, HOSTS = 20, 60, 20
"""Rows of the tables of label pairs and of hosts; columns of the throughput chart."""

STATUSES = "SELECT status, count(*) FROM labels GROUP BY 1 ORDER BY 2 DESC, 1"
LABELS_PER_IMAGE = "SELECT len(image.labels), count(*) FROM labels AS image WHERE status = 'ok' GROUP BY 1 ORDER BY 1"
LABELS = """
    SELECT label, count(*), avg(score)
    FROM (SELECT unnest(image.labels) AS label, unnest(image.scores) AS score FROM labels AS image)
    GROUP BY 1 ORDER BY 2 DESC, 1
"""
HISTOGRAMS = """
    SELECT label, least(floor(score * $bins), $bins - 1)::INT AS bin, count(*) FROM scores_of('sampled')
    WHERE label IS NOT NULL GROUP BY 1, 2
"""
LABEL_PAIRS = """
    SELECT first, second, count(*) AS images
    FROM (
        SELECT first, unnest(pair.labels) AS second
        FROM (SELECT unnest(image.labels) AS first, image.labels FROM labels AS image WHERE len(image.labels) > 1) AS pair
    )
    WHERE first < second GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT $count
"""
SPAN = "SELECT epoch(max(labeled_at) - min(labeled_at)) FROM all_rows WHERE run_id = $run"
THROUGHPUT = """
    SELECT floor(epoch(labeled_at - (SELECT min(labeled_at) FROM all_rows WHERE run_id = $run)) / $width)::INT, count(*)
    FROM all_rows WHERE run_id = $run GROUP BY 1 ORDER BY 1
"""
FAILED_HOSTS = """
    SELECT status,
           CASE
             WHEN regexp_matches(uri, '^https?://') THEN regexp_extract(uri, '://([^/?#]+)', 1)
             WHEN contains(uri, '://') THEN split_part(uri, '://', 1)
             ELSE 'local'
           END,
           count(*)
    FROM labels WHERE status <> 'ok' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT $count
"""


class Label(NamedTuple):
    """One label: the images that have the label, their mean score, its threshold in the newest run, and a histogram of its scores.

    `scores`: how many scores of all images (or of a sample) lie in each of 20 bins.
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
    """One committed run. `per_s`: images per second, the start of its workers included; None if no model was run."""

    run_id: str
    committed_at: datetime
    model: str
    engine: str
    rows: int
    failed: int
    per_s: float | None
    is_relabeled: bool


class Facts(NamedTuple):
    """The numbers of a report.

    `statuses`: rows by status. `labels_per_image`: images by number of labels. `throughput`: (seconds since the first row, images per
    second) of the newest run that scored. `hosts`: failed rows by status and server (or `local`, `s3`). `sampled`: the number of images
    in the histograms.
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
    """Count everything, in a handful of passes over the columns that each needs."""
    statuses = dict(table.sql(STATUSES).fetchall())
    labels = _labels(table)
    runs = _runs(table)
    ((sampled,),) = table.sql("SELECT count(*) FROM sampled").fetchall()
    return Facts(
        rows=sum(statuses.values()),
        statuses=statuses,
        labels=labels,
        pairs=_pairs(table, {label.name: label.images for label in labels}, statuses.get(Status.OK.value, 0)),
        labels_per_image=dict(table.sql(LABELS_PER_IMAGE).fetchall()),
        runs=runs,
        throughput=_throughput(table, runs),
        hosts=table.database.execute(FAILED_HOSTS, {"count": HOSTS}).fetchall(),
        sampled=sampled,
    )


def _labels(table: LabelTable) -> list[Label]:
    """Count each class: first the labels in use, the most frequent first, then the other labels of the newest run."""
    counts = {name: (images, mean) for name, images, mean in table.sql(LABELS).fetchall()}
    thresholds = table.newest.label_thresholds
    histograms = score_histograms(table)
    names = [*counts, *(name for name in thresholds if name not in counts)]
    return [
        Label(name, *counts.get(name, (0, 0.0)), thresholds.get(name), histograms.get(name, [0] * BINS))
        for name in names
    ]


def score_histograms(table: LabelTable) -> dict[str, list[int]]:
    """Count, by label, the scores of all images (of a sample, if there are many) in each bin. Empty if scores were not kept."""
    _create_sample(table)
    histograms: dict[str, list[int]] = {}
    for label, place, count in table.database.execute(HISTOGRAMS, {"bins": BINS}).fetchall():
        histograms.setdefault(label, [0] * BINS)[place] = count
    return histograms


def _create_sample(table: LabelTable) -> None:
    """Create the view `sampled`: one image in n, by a hash of its uri, so that two tables of the same images have the same sample."""
    ((rows,),) = table.duckdb().count("*").fetchall()
    step = max(rows // SAMPLE_ROWS, 1)
    table.duckdb().filter(f"hash(uri) % {step} = 0").create_view("sampled", replace=True)


def _pairs(table: LabelTable, images: dict[str, int], total: int) -> list[Pair]:
    rows = table.database.execute(LABEL_PAIRS, {"count": PAIRS}).fetchall()
    return [
        Pair(first, second, count, count * total / (images[first] * images[second])) for first, second, count in rows
    ]


def _runs(table: LabelTable) -> list[Run]:
    """List the committed runs, newest first."""
    runs = []
    for success in reversed(in_order(table.successes, table.records)):
        run_id = success.run_id
        record = table.records.get(run_id)
        is_relabeled = bool(record and record.relabeled_from)
        runs.append(
            Run(
                run_id=run_id,
                committed_at=success.committed_at,
                model=record.model if record else "",
                engine=f"{record.engine.engine} {record.engine.precision}" if record else "",
                rows=success.rows,
                failed=success.rows - success.statuses.get(Status.OK.value, 0),
                per_s=None if is_relabeled else success.per_s,
                is_relabeled=is_relabeled,
            )
        )
    return runs


def _throughput(table: LabelTable, runs: list[Run]) -> list[tuple[float, float]]:
    scored = [run.run_id for run in runs if not run.is_relabeled and run.rows]
    if not scored:
        return []
    ((span,),) = table.database.execute(SPAN, {"run": scored[0]}).fetchall()
    width = max(span / BUCKETS, 1.0)
    buckets = table.database.execute(THROUGHPUT, {"run": scored[0], "width": width}).fetchall()
    return [(bucket * width, count / width) for bucket, count in buckets]

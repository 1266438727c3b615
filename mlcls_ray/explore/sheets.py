"""Choose the images that a person should look at: per label the surest, the nearest to the threshold and some at random; and errors."""

from __future__ import annotations

from typing import NamedTuple

from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.views import query_rows

KINDS = ("surest", "nearest", "random")
IMAGES_PER_KIND = 6
"""Images of one kind under one label, if the budget allows."""
ERRORS = 200
ERRORS_PER_STATUS = ERRORS // 8

SUREST_AND_RANDOM = """
    SELECT label,
           max_by(struct_pack(uri := uri, score := score), score, $count) AS surest,
           max_by(struct_pack(uri := uri, score := score), hash(uri), $count) AS random
    FROM (SELECT image.uri, unnest(image.labels) AS label, unnest(image.scores) AS score FROM labels AS image)
    WHERE list_contains($labels, label) GROUP BY label
"""
NEAREST = """
    SELECT label,
           min_by(struct_pack(uri := uri, score := score, threshold := threshold), abs(score - threshold), $count) AS nearest
    FROM scores WHERE list_contains($labels, label) GROUP BY label
"""
FAILED = """
    SELECT uri, status, error_message AS message FROM labels WHERE status <> 'ok'
    QUALIFY row_number() OVER (PARTITION BY status ORDER BY hash(uri)) <= $per_status
    ORDER BY status, uri LIMIT $count
"""


class Example(NamedTuple):
    """One image under a label; `threshold` is None where it is not known."""

    uri: str
    score: float
    threshold: float | None = None


class Sheet(NamedTuple):
    """The examples of one label by kind."""

    label: str
    examples: dict[str, list[Example]]


class Failed(NamedTuple):
    """A row that is not `ok`."""

    uri: str
    status: str
    message: str


def choose_sheets(table: LabelTable, labels: list[str], budget: int) -> list[Sheet]:
    """Choose examples for as many labels (from the first on) as `budget` images allow; at least one per kind and label.

    DuckDB keeps the best few of each label while it reads: nothing is sorted.
    """
    count = max(1, min(IMAGES_PER_KIND, budget // (len(KINDS) * max(len(labels), 1))))
    shown = labels[: max(1, budget // (len(KINDS) * count))]
    examples: dict[str, dict[str, list[Example]]] = {label: {kind: [] for kind in KINDS} for label in shown}
    for query in (SUREST_AND_RANDOM, NEAREST):
        for row in query_rows(table.database, query, {"labels": shown, "count": count}):
            label = row.pop("label")
            for kind, images in row.items():
                examples[label][kind] = [Example(**image) for image in images]
    return [Sheet(label, kinds) for label, kinds in examples.items()]


def list_failed(table: LabelTable) -> list[Failed]:
    """List some rows that are not `ok`, a few of each status."""
    values = {"per_status": ERRORS_PER_STATUS, "count": ERRORS}
    return [Failed(**row) for row in query_rows(table.database, FAILED, values)]

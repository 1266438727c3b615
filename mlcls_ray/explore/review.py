"""A review: the labels that people corrected, and the images where the model still disagrees."""

from __future__ import annotations

from typing import NamedTuple

from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.views import query_rows

LABELS, EXAMPLES = 50, 200
"""Rows of the tables of labels and of images."""
OUTDATED = """
    SELECT count(*) FROM corrected ANTI JOIN model_labels AS image
    ON image.uri = corrected.uri AND image.content_hash IS NOT DISTINCT FROM corrected.content_hash
"""
DISAGREES = "verdict = 'labeled' AND list_sort(labels) <> list_sort(model_labels)"
"""True where the newest labels of the model are not those that people gave."""
LATER = f"{DISAGREES} AND run_id <> corrected_run"
"""True where those are of another run than the person saw."""
COUNTS = f"""
    WITH image AS (SELECT verdict, run_id, corrected_run, labels, model_labels FROM labels WHERE verdict IS NOT NULL)
    SELECT count(*) FILTER (verdict = 'labeled' AND NOT ({DISAGREES})) AS accepted, count(*) FILTER ({DISAGREES}) AS changed,
           count(*) FILTER (verdict = 'unsure') AS unsure, count(*) FILTER ({LATER}) AS later
    FROM image
"""  # noqa: S608
DIFFERENCES = f"""
    WITH image AS (SELECT labels, model_labels FROM labels WHERE {DISAGREES})
    SELECT name, count(*) FILTER (is_missed) AS missed, count(*) FILTER (NOT is_missed) AS wrong
    FROM (
        SELECT unnest(list_filter(labels, lambda label: NOT list_contains(model_labels, label))) AS name, true AS is_missed FROM image
        UNION ALL
        SELECT unnest(list_filter(model_labels, lambda label: NOT list_contains(labels, label))), false FROM image
    ) GROUP BY name ORDER BY missed + wrong DESC, name LIMIT $count
"""  # noqa: S608
STILL = f"""
    WITH image AS (SELECT uri, model_labels, labels FROM labels WHERE {LATER})
    SELECT * FROM image ORDER BY uri LIMIT $count
"""  # noqa: S608


class Disagreement(NamedTuple):
    """One label: the images on which the model missed it, and those where it gave it wrongly."""

    name: str
    missed: int
    wrong: int


class Example(NamedTuple):
    """An image that a run labeled after it was corrected, and not as the person did."""

    uri: str
    model_labels: list[str]
    labels: list[str]


class Review(NamedTuple):
    """Images by what people said about the labels in their newest row. `outdated`: corrections of content that is no longer there."""

    accepted: int
    changed: int
    unsure: int
    later: int
    outdated: int
    labels: list[Disagreement]
    examples: list[Example]


def review(table: LabelTable) -> Review | None:
    """Count what people corrected; None if the table was opened without corrections, or nobody corrected anything."""
    if table.corrections is None or not len(table.corrections):
        return None
    (counts,) = query_rows(table.database, COUNTS, {})
    ((outdated,),) = table.sql(OUTDATED).fetchall()
    labels = query_rows(table.database, DIFFERENCES, {"count": LABELS})
    examples = query_rows(table.database, STILL, {"count": EXAMPLES})
    return Review(
        **counts,
        outdated=outdated,
        labels=[Disagreement(**label) for label in labels],
        examples=[Example(**example) for example in examples],
    )

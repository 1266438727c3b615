"""Which labels of a table become keywords."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.tags.record import Entry

FETCH_ROWS = 1_000
LABELED = """
    SELECT image.uri, image.labels, image.scores, tagged.entry
    FROM labels AS image LEFT JOIN tagged ON tagged.uri = image.uri AND tagged.kind = $kind
    WHERE image.status = 'ok' AND (len(image.labels) > 0 OR tagged.uri IS NOT NULL)
    ORDER BY image.uri
"""


class Choice(NamedTuple):
    """Which labels become keywords, and how: only `labels` if there are any, from `min_score` on, after `prefix`."""

    labels: tuple[str, ...] = ()
    min_score: float = 0.0
    prefix: str = ""


def selected_labels(table: LabelTable, kind: str, choice: Choice) -> Iterator[tuple[str, list[str], Entry | None]]:
    """Stream uri, labels to write, and what was written before, of each image that has one or the other.

    The only place where tags take their labels from. A label that a person added may have no score; it counts.
    """
    rows = table.database.sql(LABELED, params={"kind": kind})
    for batch in rows.to_arrow_reader(FETCH_ROWS):
        for uri, names, scores, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            labels = [
                label
                for label, score in zip(names or (), scores or (), strict=True)
                if (score is None or score >= choice.min_score) and (not choice.labels or label in choice.labels)
            ]
            entry = Entry.model_validate_json(text) if text else None
            if labels or entry:
                yield uri, labels, entry

"""`mlcls sample`: which images to annotate next, from the scores of a label table.

`uncertain`: a score near its threshold, measured in logits, so that rare classes with low thresholds count too. `diverse`: farthest
points first (k-center greedy, Sener & Savarese 2018) in the space of all scores. `random`: by a hash of the uri, always the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mlcls_ray import schema
from mlcls_ray.errors import UsageError
from mlcls_ray.table.export.formats import Labeled
from mlcls_ray.table.label_table import THRESHOLDS, LabelTable
from mlcls_ray.table.views import LABELS

Strategy = Literal["uncertain", "diverse", "random"]
CANDIDATES = 50_000
"""Among so many images, drawn by hash, `diverse` looks: it compares each with each one chosen."""
COLUMNS = (schema.URI, schema.WIDTH, schema.HEIGHT, schema.CLASS_IDS, schema.LABELS, schema.SCORES)


def sample(table: LabelTable, strategy: Strategy, count: int) -> list[Labeled]:
    """`count` images (or all there are), the most wanted first.

    Raises:
        UsageError: the strategy needs scores that the table does not keep.
    """
    if strategy == "random":
        return _rows(table, "ORDER BY hash(uri) LIMIT ?", [count])
    if not table.database.execute(f"SELECT count(*) FROM {LABELS} WHERE {schema.ALL_SCORES} IS NOT NULL").fetchall()[0][
        0
    ]:
        raise UsageError(f"--strategy {strategy} needs the table's scores (all_scores: all); use random")
    if strategy == "uncertain":
        logit = "ln(greatest({0}, 1e-4) / greatest(1 - {0}, 1e-4))"
        distance = f"abs({logit.format('score')} - {logit.format('threshold')})"
        return _rows(
            table,
            f"""
            JOIN (
                SELECT {schema.URI}, min({distance}) AS distance FROM (
                    SELECT {schema.URI}, {schema.RUN_ID}, unnest({schema.ALL_SCORES}) AS score,
                           generate_subscripts({schema.ALL_SCORES}, 1) - 1 AS class_id FROM {LABELS} WHERE {schema.ALL_SCORES} IS NOT NULL
                ) JOIN {THRESHOLDS} USING ({schema.RUN_ID}, class_id) WHERE score IS NOT NULL GROUP BY 1
            ) USING ({schema.URI}) ORDER BY distance, {schema.URI} LIMIT ?
            """,
            [count],
        )
    found = table.database.execute(
        f"SELECT {schema.URI}, {schema.ALL_SCORES} FROM {LABELS} WHERE {schema.ALL_SCORES} IS NOT NULL ORDER BY hash({schema.URI}) "
        f"LIMIT {CANDIDATES}"
    ).fetchall()
    scores = np.array([[0.0 if one is None else one for one in row[1]] for row in found], np.float32)
    uris = [found[place][0] for place in farthest_first(scores, count)]
    rows = {row.uri: row for row in _rows(table, f"WHERE list_contains($1, {schema.URI})", [uris])}
    return [rows[uri] for uri in uris]


def _rows(table: LabelTable, clause: str, values: list[object]) -> list[Labeled]:
    source = f"(SELECT * FROM {LABELS} WHERE {schema.STATUS} = 'ok') AS labeled"
    query = f"SELECT {', '.join(COLUMNS)} FROM {source} {clause}"
    return [Labeled(*row) for row in table.database.execute(query, values).fetchall()]


def farthest_first(points: np.ndarray, count: int) -> list[int]:
    """Row numbers: the one nearest to the middle, then always the one farthest from all that are chosen.

    Args:
        points: float32 [N, D].
    """
    if not len(points):
        return []
    chosen = [int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen] = -1.0
    return chosen

"""`mlcls sample`: which images to annotate next, from the scores of a label table.

`uncertain`: a score near its threshold, measured in logits, so that rare classes with low thresholds count too. `diverse`: farthest
points first (k-center greedy, Sener & Savarese 2018) in the space of all scores. `random`: by a hash of the uri, always the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mlcls_ray.errors import UsageError
from mlcls_ray.table.export.formats import Labeled
from mlcls_ray.table.label_table import LabelTable

Strategy = Literal["uncertain", "diverse", "random"]
CANDIDATES = 50_000
"""`diverse` chooses among so many images, drawn by hash: it compares each of them with each image that is chosen."""

HAS_SCORES = "SELECT 1 FROM labels WHERE all_scores IS NOT NULL LIMIT 1"

RANDOM = """
SELECT uri, width, height, class_ids, labels, scores
FROM labels WHERE status = 'ok'
ORDER BY hash(uri) LIMIT ?
"""

UNCERTAIN = """
WITH scores AS (
    SELECT uri, run_id, unnest(all_scores) AS score, generate_subscripts(all_scores, 1) - 1 AS class_id
    FROM labels WHERE all_scores IS NOT NULL
), logits AS (
    SELECT uri,
        ln(greatest(score, 1e-4) / greatest(1 - score, 1e-4)) AS score_logit,
        ln(greatest(threshold, 1e-4) / greatest(1 - threshold, 1e-4)) AS threshold_logit
    FROM scores JOIN thresholds USING (run_id, class_id) WHERE score IS NOT NULL
), distances AS (
    SELECT uri, min(abs(score_logit - threshold_logit)) AS distance FROM logits GROUP BY uri
)
SELECT uri, width, height, class_ids, labels, scores
FROM labels JOIN distances USING (uri) WHERE status = 'ok'
ORDER BY distance, uri LIMIT ?
"""

CANDIDATE_SCORES = "SELECT uri, all_scores FROM labels WHERE all_scores IS NOT NULL ORDER BY hash(uri) LIMIT ?"

BY_URI = """
SELECT uri, width, height, class_ids, labels, scores
FROM labels WHERE status = 'ok' AND list_contains(?, uri)
"""


def sample(table: LabelTable, strategy: Strategy, count: int) -> list[Labeled]:
    """Choose `count` images (or all, if there are fewer), the most useful first.

    Raises:
        UsageError: the strategy needs scores that are not in the table.
    """
    if strategy == "random":
        return _rows(table, RANDOM, count)
    if not table.sql(HAS_SCORES).fetchall():
        raise UsageError(f"--strategy {strategy} needs the table's scores (all_scores: all); use random")
    if strategy == "uncertain":
        return _rows(table, UNCERTAIN, count)
    candidates = table.database.execute(CANDIDATE_SCORES, [CANDIDATES]).fetchall()
    scores = np.array([[score or 0.0 for score in all_scores] for _, all_scores in candidates], np.float32)
    uris = [candidates[row][0] for row in farthest_first(scores, count)]
    rows = {row.uri: row for row in _rows(table, BY_URI, uris)}
    return [rows[uri] for uri in uris]


def _rows(table: LabelTable, query: str, parameter: int | list[str]) -> list[Labeled]:
    rows = table.database.execute(query, [parameter]).fetchall()
    return [
        Labeled(uri=uri, width=width, height=height, class_ids=class_ids, labels=labels, scores=scores)
        for uri, width, height, class_ids, labels, scores in rows
    ]


def farthest_first(points: np.ndarray, count: int) -> list[int]:
    """Choose rows of float32 [N, D]: the one nearest to the mean, then always the one farthest from all chosen ones."""
    if not len(points):
        return []
    chosen = [int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen] = -1.0
    return chosen

"""`mlcls sample`: which images to annotate next, from the scores of a label table.

`uncertain`: a score near its threshold, measured in logits, so that rare classes with low thresholds count too. `diverse`: farthest
points first (k-center greedy, Sener & Savarese 2018) in the space of all scores. `random`: by a hash of the uri, always the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mlcls_ray.errors import UsageError
from mlcls_ray.table.export.base import LabeledImage
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.views import query_rows

Strategy = Literal["uncertain", "diverse", "random"]
CANDIDATES = 50_000
"""`diverse` chooses among so many images, drawn by hash: it compares each of them with each image that is chosen."""
LOGIT = """
    CREATE OR REPLACE TEMP MACRO logit(p) AS ln(greatest(p, 1e-4) / greatest(1 - p, 1e-4));
"""
SCORED = "SELECT count(*) FROM labels WHERE all_scores IS NOT NULL"
RANDOM = """
    SELECT uri, width, height, class_ids, labels, scores FROM labels WHERE status = 'ok' ORDER BY hash(uri) LIMIT $count
"""
UNCERTAIN = """
    SELECT uri, width, height, class_ids, labels.labels, labels.scores
    FROM labels JOIN (
        SELECT uri, min(abs(logit(score) - logit(threshold))) AS distance FROM scores WHERE label IS NOT NULL GROUP BY uri
    ) USING (uri)
    WHERE status = 'ok' ORDER BY distance, uri LIMIT $count
"""
CANDIDATE_SCORES = "SELECT uri, all_scores FROM labels WHERE all_scores IS NOT NULL ORDER BY hash(uri) LIMIT $count"
CHOSEN = """
    SELECT uri, width, height, class_ids, labels, scores FROM labels WHERE status = 'ok' AND list_contains($uris, uri)
"""


def sample(table: LabelTable, strategy: Strategy, count: int) -> list[LabeledImage]:
    """Choose `count` images (or all, if there are fewer), the most useful first.

    Raises:
        UsageError: the strategy needs scores that are not in the table.
    """
    if strategy == "random":
        return _images(table, RANDOM, {"count": count})
    ((scored,),) = table.sql(SCORED).fetchall()
    if not scored:
        raise UsageError(f"--strategy {strategy} needs the table's scores (all_scores: all); use random")
    if strategy == "uncertain":
        table.database.execute(LOGIT)
        return _images(table, UNCERTAIN, {"count": count})
    candidates = table.database.execute(CANDIDATE_SCORES, {"count": CANDIDATES}).fetchall()
    points = np.array([[score or 0.0 for score in scores] for _, scores in candidates], np.float32)
    uris = [candidates[row][0] for row in farthest_first(points, count)]
    images = {image.uri: image for image in _images(table, CHOSEN, {"uris": uris})}
    return [images[uri] for uri in uris]


def _images(table: LabelTable, query: str, values: dict[str, object]) -> list[LabeledImage]:
    return [LabeledImage(**row) for row in query_rows(table.database, query, values)]


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

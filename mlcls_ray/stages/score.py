"""Stage: pixels → scores. Drops the pixels; scores leave as float32."""

from __future__ import annotations

import numpy as np

from mlcls_ray import schema
from mlcls_ray.engines.base import Embedder, Engine
from mlcls_ray.errors import MESSAGE_LIMIT, Status
from mlcls_ray.stages.read import Batch

OUT_OF_MEMORY = ("out of memory", "resourceexhausted", "bad_alloc", "cannot allocate memory")
"""How CUDA, Paddle, C++ and the system say it, lower case."""


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


class ScoreImages:
    """Batch with `pixels` → batch with `all_scores` float32 [n, C], zeros where the row is not `ok`; with `embedder` also `embedding`
    float32 [n, D].
    """

    def __init__(self, engine: Engine, class_num: int, batch_size: int, embedder: Embedder | None = None) -> None:
        """`embedder`: the same engine, where its features are wanted."""
        self.engine = engine
        self.embedder = embedder
        self.embedding_size = embedder.embedding_size if embedder else 0
        self.class_num = class_num
        self.batch_size = batch_size
        engine.warm_up(batch_size)

    def __call__(self, batch: Batch) -> Batch:
        columns = dict(batch)
        pixels = columns.pop(schema.PIXELS)
        statuses, messages = columns[schema.STATUS].copy(), columns[schema.ERROR_MESSAGE].copy()
        # The features, where there are any, behind the scores: one array is halved, filled and checked like the other.
        scores = np.zeros((len(pixels), self.class_num + self.embedding_size), dtype=np.float32)
        good = np.flatnonzero(statuses == Status.OK.value)
        start = 0
        while start < len(good):
            rows = good[start : start + self.batch_size]
            self._score(pixels, rows, scores, statuses, messages)
            start += len(rows)
        columns |= {
            schema.STATUS: statuses,
            schema.ERROR_MESSAGE: messages,
            schema.ALL_SCORES: scores[:, : self.class_num],
        }
        return columns | ({schema.EMBEDDING: scores[:, self.class_num :]} if self.embedder else {})

    def _score(
        self, pixels: np.ndarray, rows: np.ndarray, scores: np.ndarray, statuses: np.ndarray, messages: np.ndarray
    ) -> None:
        """Score some rows in place. A batch that the engine refuses is halved until the one bad image is alone."""
        try:
            chosen = pixels if len(rows) == len(pixels) else pixels[rows]
            found = np.hstack(self.embedder.embed(chosen)) if self.embedder else self.engine.score(chosen)
            if not np.isfinite(found).all():
                raise FloatingPointError("scores that are not finite")
        except Exception as error:  # engines raise what their C++ side maps to
            if len(rows) == 1:
                statuses[rows[0]] = Status.ENGINE.value
                messages[rows[0]] = f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT]
                return
            half = len(rows) // 2
            if is_out_of_memory(error):  # the next batches will not fit either
                self.batch_size = min(self.batch_size, half)
            self._score(pixels, rows[:half], scores, statuses, messages)
            self._score(pixels, rows[half:], scores, statuses, messages)
        else:
            scores[rows] = found

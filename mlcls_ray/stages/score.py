"""Score: pixels → scores of each model. The pixels are dropped."""

from __future__ import annotations

import time
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.engines.base import Embedder, Engine
from mlcls_ray.engines.golden import check_golden
from mlcls_ray.engines.load import load_embedder, load_engine
from mlcls_ray.errors import MESSAGE_LIMIT, Status
from mlcls_ray.stages.spec import Batch, ModelSpec, RunSpec, model_column, pixels_column

OUT_OF_MEMORY = ("out of memory", "resourceexhausted", "bad_alloc", "cannot allocate memory")
"""Words by which CUDA, Paddle, C++ and the system report it, in lower case."""


class Scores(NamedTuple):
    """The scores of a batch by one model. Rows that are not `ok` have zeros."""

    status: np.ndarray
    """object [N]: the batch's, with `engine` where the engine refused an image."""
    error_message: np.ndarray
    """object [N]."""
    scores: np.ndarray
    """float32 [N, C]."""
    embedding: np.ndarray | None = None
    """float32 [N, D]."""


class Score:
    """A batch with pixels → the batch without them, and one struct column for each model: status, error_message, all_scores, embedding."""

    uses_device: ClassVar[bool] = True

    def __init__(self, spec: RunSpec) -> None:
        self.scorers = {model.name: self.make_scorer(model, spec) for model in spec.models}
        self.pixels = {model.name: pixels_column(model.preprocess) for model in spec.models}
        self.pixel_columns = tuple(map(pixels_column, spec.preprocesses))
        self.seconds = {"score": 0.0}

    def make_scorer(self, model: ModelSpec, spec: RunSpec) -> Scorer:
        """Load a model into its engine, and check that it scores as it did where the run was planned.

        Raises:
            RunError: it does not, or the files are another model's.
        """
        loaded = model.source.open(spec.job.s3)
        arguments = (model.engine.engine, loaded, spec.device, spec.engine_threads, model.engine.precision)
        embedder = load_embedder(*arguments) if spec.job.embeddings else None
        engine = embedder or load_engine(*arguments)
        scorer = Scorer(engine, len(model.vocabulary), model.engine.batch_size, embedder)
        check_golden(engine, loaded, model.engine, model.engine.batch_size, model.thresholds)
        return scorer

    def __call__(self, batch: Batch) -> Batch:
        columns = {name: column for name, column in batch.items() if name not in self.pixel_columns}
        started = time.perf_counter()
        for name, scorer in self.scorers.items():
            scores = scorer.score(batch[self.pixels[name]], batch[schema.STATUS], batch[schema.ERROR_MESSAGE])
            columns[model_column(name)] = as_struct(scores)
        self.seconds["score"] += time.perf_counter() - started
        return columns


class Scorer:
    """One model in its engine. Scores in batches; a batch that the engine refuses is halved until the one bad image is alone."""

    def __init__(self, engine: Engine, class_num: int, batch_size: int, embedder: Embedder | None = None) -> None:
        """`embedder`: the same engine, where its features are wanted too."""
        self.engine = engine
        self.embedder = embedder
        self.class_num = class_num
        self.batch_size = batch_size
        engine.warm_up(batch_size)

    def score(self, pixels: np.ndarray, status: np.ndarray, error_message: np.ndarray) -> Scores:
        """Score uint8 [N, H, W, 3]; rows that are not `ok` do not reach the engine."""
        status, error_message = status.copy(), error_message.copy()
        # The features, where there are any, stand behind the scores: one array is halved, filled and checked like the other.
        values = np.zeros(
            (len(pixels), self.class_num + (self.embedder.embedding_size if self.embedder else 0)), np.float32
        )
        rows = np.flatnonzero(status == Status.OK.value)
        start = 0
        while start < len(rows):
            part = rows[start : start + self.batch_size]
            self._score_rows(pixels, part, values, status, error_message)
            start += len(part)
        embedding = values[:, self.class_num :] if self.embedder else None
        return Scores(status, error_message, values[:, : self.class_num], embedding)

    def _score_rows(
        self, pixels: np.ndarray, rows: np.ndarray, values: np.ndarray, status: np.ndarray, error_message: np.ndarray
    ) -> None:
        try:
            chosen = pixels if len(rows) == len(pixels) else pixels[rows]
            scored = np.hstack(self.embedder.embed(chosen)) if self.embedder else self.engine.score(chosen)
            if not np.isfinite(scored).all():
                raise FloatingPointError("scores that are not finite")
        except Exception as error:  # engines raise what their C++ side maps to
            if len(rows) == 1:
                status[rows[0]] = Status.ENGINE.value
                error_message[rows[0]] = f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT]
                return
            half = len(rows) // 2
            if is_out_of_memory(error):  # the next batches will not fit either
                self.batch_size = min(self.batch_size, half)
            self._score_rows(pixels, rows[:half], values, status, error_message)
            self._score_rows(pixels, rows[half:], values, status, error_message)
        else:
            values[rows] = scored


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def as_struct(scores: Scores) -> pa.StructArray:
    """Put a model's scores into one struct column."""
    columns: dict[str, Any] = {
        schema.STATUS: pa.array(scores.status, pa.string()),
        schema.ERROR_MESSAGE: pa.array(scores.error_message, pa.string()),
        schema.ALL_SCORES: _matrix(scores.scores),
    }
    if scores.embedding is not None:
        columns[schema.EMBEDDING] = _matrix(scores.embedding)
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def from_struct(column: pa.StructArray) -> Scores:
    """Take a model's scores out of its struct column. The arrays are views of it."""
    fields = dict(zip(column.type.names, column.flatten(), strict=True))
    return Scores(
        fields[schema.STATUS].to_numpy(zero_copy_only=False),
        fields[schema.ERROR_MESSAGE].to_numpy(zero_copy_only=False),
        _rows(fields[schema.ALL_SCORES]),
        _rows(fields[schema.EMBEDDING]) if schema.EMBEDDING in fields else None,
    )


def _matrix(values: np.ndarray) -> pa.FixedSizeListArray:
    """float32 [N, K] → an Arrow array of N lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def _rows(lists: pa.FixedSizeListArray) -> np.ndarray:
    """An Arrow array of N lists → float32 [N, K]."""
    values: np.ndarray = lists.flatten().to_numpy()
    return values.reshape(len(lists), lists.type.list_size)

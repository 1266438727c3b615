"""Score: pixels → scores of each model. The pixels are dropped."""

from __future__ import annotations

import time
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.engines.base import Embedder, Engine, Pixels, is_on_device
from mlcls_ray.engines.failures import is_device_lost, is_out_of_memory
from mlcls_ray.engines.golden import check_golden
from mlcls_ray.engines.load import load_embedder, load_engine
from mlcls_ray.errors import MESSAGE_LIMIT, DeviceLostError, Status, short_message
from mlcls_ray.stages.spec import Batch, ModelSpec, RunSpec, model_column, pixels_column

WHOLE_BATCH = 4
"""Images of a batch from which on scores that are all no numbers are the device's fault, not the images'."""
BRIEF_ROWS = 5000
"""Fewer images than this are scored before an engine that starts slowly, because it looks for the fastest kernels, has caught up."""


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
        is_brief = spec.rows < BRIEF_ROWS
        embedder = load_embedder(*arguments, is_brief=is_brief) if spec.job.embeddings else None
        engine = embedder or load_engine(*arguments, is_brief=is_brief)
        scorer = Scorer(engine, len(model.vocabulary), model.engine.batch_size, embedder)
        check_golden(engine, loaded, model.engine, scorer.batch_size, model.thresholds)
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
        """`embedder`: the same engine, where its features are wanted too. Batches are smaller where the device's memory is."""
        self.engine = engine
        self.embedder = embedder
        self.class_num = class_num
        self.batch_size = batch_size
        self._warm_up()

    def score(self, pixels: Pixels, status: np.ndarray, error_message: np.ndarray) -> Scores:
        """Score uint8 [N, H, W, 3]; the scores of rows that are not `ok` are zeros.

        Such rows do not reach the engine, unless the pixels are on its device: there they are scored with the rows around them, and the
        scores are dropped, because a batch without gaps needs no copy.

        Raises:
            DeviceLostError: the device was lost, or gave no number for a whole batch.
        """
        # The features, where there are any, stand behind the scores: one array is halved, filled and checked like the other.
        values = np.zeros(
            (len(pixels), self.class_num + (self.embedder.embedding_size if self.embedder else 0)), np.float32
        )
        scored = Scores(status.copy(), error_message.copy(), values)
        self._score_rows(pixels, np.flatnonzero(status == Status.OK.value), scored)
        embedding = values[:, self.class_num :] if self.embedder else None
        return scored._replace(scores=values[:, : self.class_num], embedding=embedding)

    def _score_rows(self, pixels: Pixels, rows: np.ndarray, scored: Scores) -> None:
        """Score rows, a batch at a time, into `scored`."""
        while len(rows):
            part = self._first_batch(pixels, rows)
            try:
                self._score_batch(pixels, part, scored)
            except DeviceLostError:
                raise
            except Exception as error:  # engines raise what their C++ side maps to
                if is_device_lost(error):
                    raise DeviceLostError(f"engine {self.engine.name}: {short_message(error)}") from error
                if len(part) == 1:
                    refuse(scored, part, f"{type(error).__name__}: {error}")
                elif is_out_of_memory(error):  # the next batches will not fit either
                    self.batch_size = len(part) // 2
                    self._warm_up()
                    continue
                else:
                    for half in np.array_split(part, 2):
                        self._score_rows(pixels, half, scored)
            rows = rows[len(part) :]

    def _first_batch(self, pixels: Pixels, rows: np.ndarray) -> np.ndarray:
        """Take as many rows as make a batch. On a device the rows between them count too."""
        part = rows[: self.batch_size]
        return part[part < part[0] + self.batch_size] if is_on_device(pixels) else part

    def _score_batch(self, pixels: Pixels, rows: np.ndarray, scored: Scores) -> None:
        values = self._run(pixels, rows)
        is_finite = np.isfinite(values).all(axis=1)
        if len(rows) >= WHOLE_BATCH and not is_finite.any():
            raise DeviceLostError(
                f"engine {self.engine.name} ({self.engine.precision}) gives no number for any of {len(rows)} images of a batch"
            )
        scored.scores[rows[is_finite]] = values[is_finite]
        refuse(scored, rows[~is_finite], "FloatingPointError: scores that are not finite")

    def _run(self, pixels: Pixels, rows: np.ndarray) -> np.ndarray:
        """Return what the engine gives for rows, with the features behind the scores."""
        start, end = int(rows[0]), int(rows[-1]) + 1
        has_gaps = len(rows) < end - start
        chosen = pixels[rows] if has_gaps and isinstance(pixels, np.ndarray) else pixels[start:end]
        values = np.hstack(self.embedder.embed(chosen)) if self.embedder else self.engine.score(chosen)
        return values[rows - start] if len(values) > len(rows) else values

    def _warm_up(self) -> None:
        """Warm the engine up for the batch size, or for a smaller one that the memory has room for."""
        while True:
            try:
                self.engine.warm_up(self.batch_size)
            except Exception as error:  # as above
                if is_device_lost(error):
                    raise DeviceLostError(f"engine {self.engine.name}: {short_message(error)}") from error
                if self.batch_size == 1 or not is_out_of_memory(error):
                    raise
                self.batch_size //= 2
            else:
                return


def refuse(scored: Scores, rows: np.ndarray, message: str) -> None:
    """Give rows the status `engine`, in place."""
    scored.status[rows] = Status.ENGINE.value
    scored.error_message[rows] = message[:MESSAGE_LIMIT]


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

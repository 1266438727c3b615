"""The library face: PaddleX's `create_pipeline` and `predict`, over the same functions as the job and without Ray.

pipeline = create_pipeline(pipeline="multi_label_image_classification")
for result in pipeline.predict("photo.jpg"):
    result.print()
    result.save_to_img("./output/")
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

import numpy as np

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.autotune import TrialRequest, resolve_engine
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import ImageError, MlclsError, Status, UsageError
from mlcls_ray.images.draw import Chip
from mlcls_ray.labels.select import select
from mlcls_ray.labels.thresholds import Thresholds, parse_thresholds
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.zoo import STARTER
from mlcls_ray.predict.inputs import Page, read_inputs
from mlcls_ray.predict.paddlex_config import PIPELINES, parse_pipeline, read_pipeline
from mlcls_ray.predict.results import SCORE_DIGITS, Names, Result
from mlcls_ray.prefetch import prefetch_map

T = TypeVar("T")
ThresholdLike = float | Mapping[Any, float] | Sequence[float] | Thresholds | None
OnError = Literal["raise", "skip", "return"]


class PredictError(MlclsError):
    """An input that could not be labeled, with `on_error="raise"`."""


def create_pipeline(
    pipeline: str | Path | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    model: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    threshold: ThresholdLike = None,
    use_hpip: bool | None = None,
    enable_hpi: bool | None = None,
) -> Pipeline:
    """Load a model and be ready to label images on this machine.

    What is given here wins over the YAML file.

    Args:
        pipeline: a pipeline name of PaddleX (both spellings) or a YAML file in either of its formats. Default: the name.
        config: such a file's content, instead of it.
        model: a name (`mlcls models`) or a folder with `inference.yml`. Default: the starter model that ships with the package.
        device: cpu, gpu, gpu:0, npu:0 …; gpu:0,1 uses both cards. Default: cpu.
        batch_size: images per forward pass. Default: 1, as in PaddleX's tutorial.
        threshold: see `Pipeline.predict`.
        use_hpip: take the fastest engine of this machine that gives Paddle's labels, by a trial of some seconds the first time (see
            `engines.autotune`). `enable_hpi` is PaddleX's other name for it. Default: Paddle in fp32.

    Raises:
        UsageError: names the argument, the value and the way out.
    """
    told = parse_pipeline(config) if config is not None else read_pipeline(pipeline or PIPELINES[0])
    return Pipeline(
        model=str(model or told.model or STARTER),
        device=device or told.device or "cpu",
        batch_size=batch_size or told.batch_size or 1,
        threshold=threshold if threshold is not None else told.threshold,
        is_fastest=next((one for one in (use_hpip, enable_hpi, told.use_hpip) if one is not None), False),
    )


class Pipeline:
    """A loaded model, once for each card that `device` names. One thread at a time."""

    def __init__(
        self, model: str, device: str, batch_size: int, threshold: ThresholdLike, is_fastest: bool = False
    ) -> None:
        self.model: Model = open_model(model)
        self.device = parse_device(device)
        self.batch_size = batch_size
        self.threshold = threshold
        self.thresholds = resolve_thresholds(threshold, self.model)
        threads = os.cpu_count() or 1
        choice = resolve_engine(
            TrialRequest(
                engine="auto" if is_fastest else "paddle",
                precision="auto" if is_fastest else "fp32",
                model=self.model,
                thresholds=self.thresholds,
                device=self.device,
                threads=threads,
                batch_size=batch_size,
            )
        )
        self.engines: list[Engine] = [
            load_engine(choice.engine, self.model, one, threads, choice.precision) for one in self.device.each()
        ]
        for engine in self.engines:
            engine.warm_up(1)
        self.names = Names()

    def predict(
        self,
        input: Any,
        *,
        batch_size: int | None = None,
        threshold: ThresholdLike = None,
        on_error: OnError = "raise",
    ) -> Iterator[Result]:
        """Label images, lazily and in the order of the input: nothing is read before it is asked for.

        Args:
            input: a path, URL, folder, array (BGR uint8, as OpenCV has it), Pillow image, bytes, a mapping with `img`, or a list of any of
                these, nested as you like. Each page of a PDF or TIFF is a result.
            batch_size: images per forward pass, for this call.
            threshold: one number; a mapping from class id or name to number, with `default`; or a list with one number per class. A label
                is kept where its score is greater. PaddleX pairs such a list with the images of a batch; here it is one per class.
            on_error: what happens with an input that cannot be read: `raise` a PredictError when it is its turn (its neighbours have been
                given by then), `skip` it, or `return` a result whose `error` says why.

        Raises:
            UsageError: at once, for an argument that is wrong.
        """
        if on_error not in ("raise", "skip", "return"):
            raise UsageError(f"on_error: '{on_error}' is not one of raise, skip, return")
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UsageError(f"batch_size: {size} is less than 1")
        thresholds = self.thresholds if threshold is None else resolve_thresholds(threshold, self.model)
        return self._predict(input, size, thresholds, on_error)

    __call__ = predict

    def _predict(self, given: Any, size: int, thresholds: np.ndarray, on_error: OnError) -> Iterator[Result]:
        for pages, scored in self._scored(_batches(read_inputs(given), size), thresholds):
            for page, labels in zip(pages, scored, strict=True):
                error = page.error if labels is None else None
                if labels is None and error is None:
                    error = ImageError(Status.ENGINE, "the engine gave scores that are no numbers")
                if error is not None and on_error == "raise":
                    raise PredictError(f"'{page.path or 'an input without a path'}': {error.status}: {error}")
                if error is None or on_error == "return":
                    yield Result(
                        page.path,
                        page.page_index,
                        page.image,
                        labels or [],
                        self.names.stem(page.path, page.page_index),
                        error,
                    )

    def _scored(
        self, batches: Iterator[list[Page]], thresholds: np.ndarray
    ) -> Iterator[tuple[list[Page], list[list[Chip] | None]]]:
        """Batches with their labels, in order. With several cards as many batches are under way; with one, none that was not asked for."""
        if len(self.engines) == 1:
            yield from ((pages, self._score(self.engines[0], pages, thresholds)) for pages in batches)
            return
        free: SimpleQueue[Engine] = SimpleQueue()
        for engine in self.engines:
            free.put(engine)

        def score(pages: list[Page]) -> tuple[list[Page], list[list[Chip] | None]]:
            engine = free.get()
            try:
                return pages, self._score(engine, pages, thresholds)
            finally:
                free.put(engine)

        with ThreadPoolExecutor(len(self.engines), thread_name_prefix="card") as threads:
            yield from prefetch_map(score, batches, threads, len(self.engines))

    def _score(self, engine: Engine, pages: list[Page], thresholds: np.ndarray) -> list[list[Chip] | None]:
        """The labels of each page, best first; None where it has no image."""
        good = [number for number, page in enumerate(pages) if page.image is not None]
        labels: list[list[Chip] | None] = [None] * len(pages)
        if good:
            images = [page.image for page in pages if page.image is not None]
            scores = engine.score(np.stack([self.model.preprocess.to_pixels(image) for image in images]))
            for number, found in zip(good, to_chips(scores, thresholds, self.model.vocabulary), strict=True):
                labels[number] = found
        return labels


def to_chips(scores: np.ndarray, thresholds: np.ndarray, vocabulary: Sequence[str]) -> list[list[Chip] | None]:
    """Scores, float32 [N, C], as the labels of each image, best first; None where they are no numbers."""
    found = select(scores, thresholds)
    bounds = [slice(start, end) for start, end in pairwise(found.offsets)]
    return [
        [
            Chip(int(class_id), vocabulary[class_id], round(float(score), SCORE_DIGITS))
            for class_id, score in zip(found.class_ids[own], found.scores[own], strict=True)
        ]
        if np.isfinite(scores[position]).all()
        else None
        for position, own in enumerate(bounds)
    ]


def resolve_thresholds(given: ThresholdLike, model: Model) -> np.ndarray:
    """One threshold per class, float32 [C], of any form that `predict` takes.

    Raises:
        UsageError: not a number between 0 and 1, an unknown class, or a list of another length.
    """
    return parse_thresholds(given).resolve(model.vocabulary, model.thresholds).values


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

"""PaddleX's `create_pipeline` and `predict`, built from the same functions as the job, and without Ray.

pipeline = create_pipeline(pipeline="multi_label_image_classification")
for result in pipeline.predict("photo.jpg"):
    result.print()
    result.save_to_img("./output/")
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

import numpy as np

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.autotune import TrialRequest, resolve_engine
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.devices import check_device
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import ImageError, PredictError, Status, UsageError
from mlcls_ray.images.chips import select_chips
from mlcls_ray.images.draw import Chip
from mlcls_ray.labels.label_map import ResolvedLabelMap, parse_label_map
from mlcls_ray.labels.thresholds import Thresholds, parse_thresholds
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.zoo import STARTER
from mlcls_ray.predict.inputs import Page, read_inputs
from mlcls_ray.predict.paddlex_config import PipelineConfig, choose_engine, read_settings
from mlcls_ray.predict.results import FileStems, Result
from mlcls_ray.prefetch import prefetch_map

T = TypeVar("T")
ThresholdLike = float | str | Mapping[Any, float] | Sequence[float] | Thresholds | None
OnError = Literal["raise", "skip", "return"]
ON_ERROR = ("raise", "skip", "return")


def create_pipeline(
    pipeline: str | Path | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    model: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    threshold: ThresholdLike = None,
    map: str | Path | Mapping[str, str | None] | None = None,
    engine: str | None = None,
    precision: str | None = None,
    use_hpip: bool | None = None,
    enable_hpi: bool | None = None,
) -> Pipeline:
    """Load a model to label images on this machine, in this process.

    Arguments override the YAML file. Without `engine`, `precision` and `use_hpip` the network runs in fp32, on Paddle as in PaddleX, and on
    NVIDIA GPUs on ONNX Runtime.

    Args:
        pipeline: a pipeline name of PaddleX (both spellings) or a YAML file in either of its formats. Default: the name.
        config: the content of such a file, instead of the file.
        model: a name (`mlcls models`) or a folder with `inference.yml`. Default: the starter model that ships with the package.
        device: cpu, gpu, gpu:0, npu:0 …; gpu:0,1 uses both. Default: cpu.
        batch_size: images per forward pass. Default: 1, as in PaddleX's tutorial.
        threshold: see `Pipeline.predict`.
        map: other names for labels, by class name; labels with one new name are merged, and None drops a label. Or the path of a YAML or
            JSON file with them. Default: the model's own names.
        engine: paddle, openvino, onnxruntime, tensorrt, or auto: the fastest on this machine that gives Paddle's labels. Auto measures
            for some seconds the first time, and remembers. PaddleX's paddle_static and paddle_dynamic mean paddle, its hpi means auto.
            Default: paddle, on NVIDIA GPUs onnxruntime; with `use_hpip`: auto. On these, paddle and tensorrt are experimental.
        precision: fp32, tf32 and fp16 (NVIDIA GPUs), bf16, int8 (a model from `mlcls quantize`), or auto: chosen together with the engine.
            Default: fp32; where the engine is auto: auto.
        use_hpip: True is the same as engine="auto"; an `engine` that is given wins. `enable_hpi` is PaddleX's other name for it.

    Raises:
        UsageError: an argument is wrong; the message names the argument, the value and the way out.
        RunError: the model cannot be loaded.
    """
    arguments = {
        "model": None if model is None else str(model),
        "device": device,
        "batch_size": batch_size,
        "threshold": threshold,
        "map": map,
        "engine": engine,
        "precision": precision,
        "use_hpip": enable_hpi if use_hpip is None else use_hpip,
    }
    settings = read_settings(pipeline, config, arguments)
    opened = open_model(settings.model or STARTER)
    thresholds = parse_thresholds(settings.threshold).resolve(opened.vocabulary, opened.thresholds).values
    label_map = parse_label_map(settings.map).resolve(opened.vocabulary)
    engines = load_engines(opened, settings, thresholds)
    return Pipeline(opened, engines, settings.batch_size or 1, thresholds, label_map)


def load_engines(model: Model, settings: PipelineConfig, thresholds: np.ndarray) -> list[Engine]:
    """Load a model into one engine for each device. Raises as `create_pipeline`."""
    device = parse_device(settings.device or "cpu")
    threads = os.cpu_count() or 1
    engine, precision = choose_engine(settings)
    check_device(device, engine, tries_network=False)
    chosen = resolve_engine(
        TrialRequest(
            engine=engine,
            precision=precision,
            model=model,
            thresholds=thresholds,
            device=device,
            threads=threads,
            batch_size=settings.batch_size or 1,
        )
    )
    engines = [load_engine(chosen.engine, model, each, threads, chosen.precision) for each in device.each()]
    for loaded in engines:
        loaded.warm_up(1)
    return engines


class Pipeline:
    """A model, loaded into one engine for each device. Use it from one thread at a time.

    `thresholds`, float32 [C], are those of calls that name none.
    """

    def __init__(
        self,
        model: Model,
        engines: Sequence[Engine],
        batch_size: int,
        thresholds: np.ndarray,
        label_map: ResolvedLabelMap,
    ) -> None:
        self.model = model
        self.engines = engines
        self.batch_size = batch_size
        self.thresholds = thresholds
        self.label_map = label_map
        self.stems = FileStems()

    def __repr__(self) -> str:
        engine = self.engines[0]
        return f"<Pipeline {self.model.name}: {engine.name} in {engine.precision} on {len(self.engines)} device(s)>"

    def predict(
        self,
        input: Any,
        *,
        batch_size: int | None = None,
        threshold: ThresholdLike = None,
        on_error: OnError = "raise",
    ) -> Iterator[Result]:
        """Label images, lazily and in the order of the input: an image is read only when its result is asked for.

        Args:
            input: a path, URL, folder, array (BGR uint8, as in OpenCV), Pillow image, bytes, a mapping with `img`, or a list of any of
                these, nested as you like. Each page of a PDF or TIFF is a result.
            batch_size: images per forward pass, for this call.
            threshold: one number; a mapping from class id or name to number, with `default`; a list with one number per class; text as on
                the command line, `0.5,person=0.7`; or the path of a YAML or JSON file. A score above it makes a label. PaddleX pairs a
                list with the images of a batch; here it is one number per class.
            on_error: what to do with an input that cannot be read: `raise` a PredictError when its turn comes (after the results before
                it), `skip` it, or `return` a result whose `error` says why.

        Raises:
            UsageError: an argument is wrong; raised by the call itself, not by the iterator.
        """
        if on_error not in ON_ERROR:
            raise UsageError(f"on_error: '{on_error}' is not one of {', '.join(ON_ERROR)}")
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UsageError(f"batch_size: {size} is less than 1")
        thresholds = self.thresholds
        if threshold is not None:
            thresholds = parse_thresholds(threshold).resolve(self.model.vocabulary, self.model.thresholds).values
        return self._predict(input, size, thresholds, on_error)

    __call__ = predict

    def _predict(self, inputs: Any, size: int, thresholds: np.ndarray, on_error: OnError) -> Iterator[Result]:
        for pages, labels_by_page in self._label(_batches(read_inputs(inputs), size), thresholds):
            for page, labels in zip(pages, labels_by_page, strict=True):
                error = page.error if labels is None else None
                if labels is None and error is None:
                    error = ImageError(Status.ENGINE, "the engine gave scores that are not finite")
                if error is not None and on_error == "raise":
                    raise PredictError(f"'{page.path or 'an input without a path'}': {error.status}: {error}")
                if error is None or on_error == "return":
                    stem = self.stems.stem(page.path, page.page_index)
                    yield Result(page.path, page.page_index, page.image, labels or [], stem, error)

    def _label(
        self, batches: Iterator[list[Page]], thresholds: np.ndarray
    ) -> Iterator[tuple[list[Page], list[list[Chip] | None]]]:
        """Pair batches with their labels, in order. Several engines work on as many batches at once; one engine never works ahead."""
        if len(self.engines) == 1:
            yield from ((pages, self._label_batch(self.engines[0], pages, thresholds)) for pages in batches)
            return
        idle: SimpleQueue[Engine] = SimpleQueue()
        for engine in self.engines:
            idle.put(engine)

        def label(pages: list[Page]) -> tuple[list[Page], list[list[Chip] | None]]:
            engine = idle.get()
            try:
                return pages, self._label_batch(engine, pages, thresholds)
            finally:
                idle.put(engine)

        with ThreadPoolExecutor(len(self.engines), thread_name_prefix="engine") as threads:
            yield from prefetch_map(label, batches, threads, len(self.engines))

    def _label_batch(self, engine: Engine, pages: list[Page], thresholds: np.ndarray) -> list[list[Chip] | None]:
        """Label each page, best label first; None for a page without an image or with scores that are not finite."""
        pixels = [self.model.preprocess.to_pixels(page.image) for page in pages if page.image is not None]
        if not pixels:
            return [None] * len(pages)
        scores = engine.score(np.stack(pixels))
        labels = iter(select_chips(scores, thresholds, self.label_map.names, self.label_map.groups))
        return [None if page.image is None else next(labels) for page in pages]


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

"""What Ray's actors run: the stages, put together per placement and loaded once per worker."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.exceptions

from mlcls_ray import schema
from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import EngineConfig, check_golden
from mlcls_ray.engines.load import load_embedder, load_engine
from mlcls_ray.job.cards import Card, claim_device
from mlcls_ray.job.engine import ModelSource
from mlcls_ray.job.row_log import RowLog
from mlcls_ray.labels.thresholds import threshold_id
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.stages.annotate import AnnotateImages
from mlcls_ray.stages.read import Batch, ReadImages, ReadOptions
from mlcls_ray.stages.score import ScoreImages
from mlcls_ray.stages.select import Provenance, SelectLabels
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout

ASK_INTERVAL_S = 1.0
ASK_TIMEOUT_S = 10.0
BATCHES_AHEAD = 2
"""How many batches a fused worker reads ahead of the one that is scored."""


class WorkerSpec(NamedTuple):
    """What a worker is told; small, no weights. Each loads the model from its own machine's cache, or as the driver shipped it."""

    job: LabelJob
    read: ReadOptions
    device: Device
    model_name: str
    model: ModelSource
    choice: EngineConfig
    thresholds: np.ndarray
    run_id: str
    engine_threads: int
    tally: Any
    """Handle of the `tally.Tally` actor."""
    pixels: str = schema.PIXELS
    """The column with the pixels of this model's preprocessing."""
    others: tuple[WorkerSpec, ...] = ()
    """Of further models, each with its own output, that score the same images."""


class StopSignal:
    """Whether the run is to end early; the rest of the rows then stays for another attempt. Asks the tally once a second at most."""

    def __init__(self, tally: Any) -> None:
        self.tally = tally
        self.asked_at = 0.0
        self.stopped = False

    def is_set(self) -> bool:
        now = time.monotonic()
        if not self.stopped and now - self.asked_at > ASK_INTERVAL_S:
            self.asked_at = now
            # Nobody to ask (its node died, it restarts) is no reason to stop.
            with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
                self.stopped = bool(ray.get(self.tally.stop_reason.remote(), timeout=ASK_TIMEOUT_S))
        return self.stopped


class Clock:
    """Tells the tally what a worker's stages have spent since it was told last, once a second at most."""

    def __init__(self, tally: Any) -> None:
        self.tally = tally
        self.told: dict[str, float] = {}
        self.told_at = 0.0

    def tell(self, seconds: Mapping[str, float]) -> None:
        if (now := time.monotonic()) - self.told_at < ASK_INTERVAL_S:
            return
        self.told_at = now
        more = {stage: spent - self.told.get(stage, 0.0) for stage, spent in seconds.items()}
        self.told.update(seconds)
        self.tally.spend.remote(more)


class ReadWorker:
    """Split placement, first half: manifest rows → pixels."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.read = ReadImages(spec.read)
        self.stop = StopSignal(spec.tally)
        self.clock = Clock(spec.tally)

    def __call__(self, manifest: pa.Table) -> Batch:
        batch = self.read(manifest.slice(0, 0) if self.stop.is_set() else manifest)
        self.clock.tell(self.read.seconds)
        return batch


class ScoreWorker:
    """Split placement, second half: pixels → rows of the label table; of several models, side by side as `schema.join_models`."""

    def __init__(self, spec: WorkerSpec, card: Card | None = None) -> None:
        """`card`: the one that this process has already."""
        model = spec.model.open(spec.job)
        self.card = card or claim_device(spec.device, spec.job.workers_per_device)
        asked = (spec.choice.engine, model, self.card.device, spec.engine_threads, spec.choice.precision)
        embedder = load_embedder(*asked) if spec.job.embeddings else None
        engine = embedder or load_engine(*asked)
        self.score = ScoreImages(engine, len(model.vocabulary), spec.choice.batch_size, embedder)
        check_golden(engine, model, spec.choice, spec.choice.batch_size)
        provenance = Provenance(
            model=spec.model_name,
            model_fingerprint=model.fingerprint,
            preprocess_fingerprint=model.preprocess_fingerprint(spec.job.decode),
            engine=engine.name,
            precision=engine.precision,
            threshold_id=threshold_id(spec.thresholds),
            run_id=spec.run_id,
        )
        annotates = spec.job.annotate != "none"
        self.select = SelectLabels(
            model.vocabulary,
            spec.thresholds,
            provenance,
            spec.job.all_scores,
            spec.job.top_k,
            annotates,
            self.score.embedding_size,
        )
        self.annotate = (
            AnnotateImages(
                Store(spec.job.out, spec.job.s3),
                layout.annotated_folder(spec.run_id),
                spec.job.max_pixels,
                spec.read.threads,
            )
            if annotates
            else None
        )
        self.tally = spec.tally
        self.clock = Clock(spec.tally)
        self.score_s = 0.0
        self.row_log = RowLog(spec.run_id)
        self.pixels = spec.pixels
        self.others = [ScoreWorker(one, self.card) for one in spec.others]

    def __call__(self, batch: Batch) -> pa.Table:
        rows = self.label(batch)
        sizes = pc.sum(rows.column(schema.SIZE_BYTES)).as_py() or 0
        self.tally.add.remote(dict(Counter(rows.column(schema.STATUS).to_pylist())), sizes)
        self.row_log.log(rows)
        return schema.join_models([rows, *(other.label(batch) for other in self.others)]) if self.others else rows

    def label(self, batch: Batch) -> pa.Table:
        """One model's rows."""
        began = time.perf_counter()
        scored = self.score({**batch, schema.PIXELS: batch[self.pixels]})
        self.score_s += time.perf_counter() - began
        self.clock.tell({"score": self.score_s})
        rows = self.select(scored)
        return self.annotate(rows) if self.annotate else rows


class LabelWorker:
    """Fused placement: manifest rows → rows of the label table in one process, reading ahead while it scores."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.read = ReadImages(spec.read)
        self.finish = ScoreWorker(spec)
        self.stop = StopSignal(spec.tally)
        self.clock = Clock(spec.tally)
        self.batch_size = max(one.choice.batch_size for one in (spec, *spec.others))
        self.ahead = ThreadPoolExecutor(BATCHES_AHEAD, thread_name_prefix="ahead")

    def __call__(self, manifest: pa.Table) -> Iterator[pa.Table]:
        parts = (manifest.slice(start, self.batch_size) for start in range(0, manifest.num_rows, self.batch_size))
        for batch in prefetch_map(self.read, parts, self.ahead, BATCHES_AHEAD):
            if self.stop.is_set():
                return
            self.clock.tell(self.read.seconds)
            yield self.finish(batch)

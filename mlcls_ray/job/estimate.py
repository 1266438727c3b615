"""`mlcls estimate`: measure a sample of the inputs on this machine, and estimate from it what all of them take and what limits the job."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.autotune import TrialRequest, resolve_engine
from mlcls_ray.engines.base import Engine
from mlcls_ray.engines.devices import check_device
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import ImageError, UsageError, one_image
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.images.resize import can_compile
from mlcls_ray.job.listing import LISTING, list_images, no_image
from mlcls_ray.models.cache import open_model
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.inputs.listing import InputEntry, LeftOut, check_inputs
from mlcls_ray.terminal import SILENT, Steps, counted

SAMPLE = 1000
"""Inputs in the sample."""
SAMPLE_S = 60.0
"""Seconds to measure; a third of them each for fetching, decoding and scoring."""
SAMPLE_BYTES = 1 << 30
"""Encoded images held in memory at once."""

Bound = Literal["fetch", "decode", "score"]
ADVICE: dict[Bound, str] = {
    "fetch": "images arrive more slowly than one worker decodes and scores them: raise fetch_threads, or run nearer to the data",
    "decode": "decoding takes longer than scoring: more CPU cores help, an accelerator does not; smaller images would",
    "score": "scoring takes longer than decoding: more cores, a smaller model, or an accelerator (--device gpu) help",
}


class Estimate(BaseModel):
    """The estimate for all inputs, from a sample of them.

    `decode_ms` and `score_ms` are of one image on one core, `fetch_per_s` is the rate of one worker with its threads. `eta_s`, the
    seconds on this machine, and `core_hours` are for all `listed` inputs.
    """

    model_config = ConfigDict(frozen=True)

    listed: int
    left_out: dict[str, int] = {}
    """Files that are no images by their names, by suffix."""
    sampled: int
    failed: int
    model: str
    engine: str
    precision: str
    fetch_per_s: float
    decode_ms: float
    score_ms: float
    cores: int

    @property
    def _computed_per_s(self) -> float:
        return 1000 / (self.decode_ms + self.score_ms)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def per_core_s(self) -> float:
        """Images per second and core."""
        return min(self._computed_per_s, self.fetch_per_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bound(self) -> Bound:
        """The stage that limits the job."""
        if self.fetch_per_s < self._computed_per_s:
            return "fetch"
        return "decode" if self.decode_ms > self.score_ms else "score"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def eta_s(self) -> float:
        """Seconds that all inputs take on this machine."""
        return self.listed / (self.per_core_s * self.cores)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def core_hours(self) -> float:
        """Core hours that all inputs take."""
        return self.listed / self.per_core_s / 3600

    @property
    def advice(self) -> str:
        """Advice in a sentence: the change that would make the job faster."""
        return ADVICE[self.bound]


def estimate(job: LabelJob, seconds: float = SAMPLE_S, steps: Steps = SILENT) -> Estimate:
    """List all inputs; then fetch, decode and score a random sample of them on this machine, without Ray.

    Raises:
        UsageError: there is no input, no image of the sample could be read, or the device cannot be used.
    """
    check_inputs(job.inputs, job.s3)
    model = open_model(job.model, job.s3)
    device = parse_device(job.device)
    check_device(device, job.engine, tries_network=False)
    steps.say(LISTING)
    left_out = LeftOut()
    listed, sample = draw_sample(counted(list_images(job, left_out), steps, "images"))
    if not sample:
        raise no_image(job, left_out)
    steps.say("fetching a sample")
    images, fetch_s = _fetch([entry.uri for entry in sample], job, seconds / 3)
    steps.say(f"decoding {len(images):,} images")
    pixels, tried, decode_s = _decode(images, model.preprocess, job, seconds / 3)
    if not pixels:
        raise UsageError(f"none of {len(sample)} sampled images could be read")
    steps.say("choosing an engine")
    config = resolve_engine(
        TrialRequest(
            engine=job.engine,
            precision=job.precision,
            model=model,
            thresholds=job.threshold.resolve(model.vocabulary, model.thresholds).values,
            device=device,
            threads=1,
            batch_size=job.batch_size,
        )
    )
    engine = load_engine(config.engine, model, device, 1, config.precision)
    steps.say(f"scoring {len(pixels):,} images")
    scored, score_s = _score(pixels, engine, config.batch_size, seconds / 3)
    return Estimate(
        listed=listed,
        left_out=dict(left_out.counts),
        sampled=tried,
        failed=tried - len(pixels),
        model=model.name,
        engine=config.engine,
        precision=config.precision,
        fetch_per_s=len(images) / max(fetch_s, 1e-9),
        decode_ms=1000 * decode_s / tried,
        score_ms=1000 * score_s / scored,
        cores=os.cpu_count() or 1,
    )


def draw_sample(entries: Iterable[InputEntry]) -> tuple[int, list[InputEntry]]:
    """Count the entries, and draw `SAMPLE` of them with equal chances (reservoir sampling)."""
    chance = random.Random(0)  # noqa: S311
    sample: list[InputEntry] = []
    count = 0
    for count, entry in enumerate(entries, start=1):
        if len(sample) < SAMPLE:
            sample.append(entry)
        elif (position := chance.randrange(count)) < SAMPLE:
            sample[position] = entry
    chance.shuffle(sample)
    return count, sample


def _fetch(uris: Sequence[str], job: LabelJob, seconds: float) -> tuple[list[bytes], float]:
    """Fetch images as one worker does until the time is over: the bytes (empty for a failure), and the seconds it took."""
    fetcher = Fetcher(job)

    def fetch(uri: str) -> bytes:
        try:
            return fetcher.fetch(uri).image_bytes
        except ImageError:
            return b""

    images: list[bytes] = []
    start = time.perf_counter()
    with ThreadPoolExecutor(job.fetch_threads, thread_name_prefix="estimate") as threads:
        held = 0
        for image_bytes in prefetch_map(fetch, uris, threads, job.fetch_threads):
            images.append(image_bytes)
            held += len(image_bytes)
            if held > SAMPLE_BYTES or time.perf_counter() - start > seconds:
                break
    return images, time.perf_counter() - start


def _decode(
    images: Sequence[bytes], preprocess: Preprocess, job: LabelJob, seconds: float
) -> tuple[list[np.ndarray], int, float]:
    """Decode and resize images until the time is over, as a worker of a large job does it.

    Returns:
        The pixels, how many images were tried, and this thread's CPU seconds.
    """
    is_auto = job.decode == "auto"
    min_size = preprocess.min_decode_size if is_auto else None
    compiled = is_auto and can_compile()
    pixels: list[np.ndarray] = []
    tried, start, cpu_start = 0, time.perf_counter(), time.thread_time()
    for image_bytes in images:
        tried += 1
        with contextlib.suppress(ImageError), one_image():
            pixels.append(preprocess.to_pixels(decode(image_bytes, job.max_pixels, min_size).image, compiled))
        if time.perf_counter() - start > seconds:
            break
    return pixels, tried, time.thread_time() - cpu_start


def _score(pixels: Sequence[np.ndarray], engine: Engine, batch_size: int, seconds: float) -> tuple[int, float]:
    """Score batches until the time is over, at least one: how many images were scored, and the seconds it took."""
    engine.warm_up(batch_size)
    scored, start = 0, time.perf_counter()
    while scored == 0 or (scored < len(pixels) and time.perf_counter() - start < seconds):
        batch = np.stack(pixels[scored : scored + batch_size])
        engine.score(batch)
        scored += len(batch)
    return scored, time.perf_counter() - start

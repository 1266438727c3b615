"""`mlcls probe`: a sample of the corpus on this machine, and what it says of the whole: what bounds it, how long, what to change."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.autotune import resolve_engine
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import ImageError, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.models.cache import open_model
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.inputs.listing import InputEntry, check_inputs, list_inputs

SAMPLE = 1000
SAMPLE_S = 60.0
SAMPLE_BYTES = 1 << 30
"""Of encoded images held at once."""

Bound = Literal["fetch", "decode", "score"]
ADVICE: dict[Bound, str] = {
    "fetch": "images come slower than one worker decodes and scores them: raise fetch_threads, or run nearer to the data",
    "decode": "decoding takes longer than scoring: more CPU cores help, an accelerator does not; smaller images would",
    "score": "the network takes longer than decoding: more cores, a smaller model, or an accelerator (--device gpu) help",
}


class Probe(BaseModel):
    """Milliseconds are of one core and one image; `fetch_per_s` is of one worker with its threads; `eta_s` and `core_hours` are of all."""

    model_config = ConfigDict(frozen=True)

    listed: int
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
        return min(self._computed_per_s, self.fetch_per_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bound(self) -> Bound:
        if self.fetch_per_s < self._computed_per_s:
            return "fetch"
        return "decode" if self.decode_ms > self.score_ms else "score"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def eta_s(self) -> float:
        return self.listed / (self.per_core_s * self.cores)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def core_hours(self) -> float:
        return self.listed / self.per_core_s / 3600

    @property
    def advice(self) -> str:
        return ADVICE[self.bound]


def probe(job: LabelJob, seconds: float = SAMPLE_S) -> Probe:
    """List everything, then fetch, decode and score a random sample of it on this machine, without Ray.

    Raises:
        UsageError: nothing was found, or none of the sample could be read.
    """
    check_inputs(job.inputs, job.s3)
    model = open_model(job.model, job.s3)
    device = parse_device(job.device)
    listed, sample = _sample(list_inputs(job.inputs, job.s3, job.uri_column))
    if not sample:
        raise UsageError(f"no image found in {', '.join(job.inputs)}")
    images, fetch_s = _fetch([found.uri for found in sample], job, seconds / 3)
    pixels, decode_s = [], 0.0
    began = time.perf_counter()
    tried = 0
    for image_bytes in images:
        started = time.thread_time()
        tried += 1
        try:
            enough = model.preprocess.enough if job.decode == "auto" else None
            pixels.append(model.preprocess.to_pixels(decode(image_bytes, job.max_pixels, enough).image))
        except ImageError:
            pass
        decode_s += time.thread_time() - started
        if time.perf_counter() - began > seconds / 3:
            break
    if not pixels:
        raise UsageError(f"none of {len(sample)} sampled images could be read")
    choice = resolve_engine(job.engine, job.precision, model, device, 1, job.batch_size)
    engine = load_engine(choice.engine, model, device, 1, choice.precision)
    engine.warm_up(choice.batch_size)
    scored, began = 0, time.perf_counter()
    while scored == 0 or (scored < len(pixels) and time.perf_counter() - began < seconds / 3):
        batch = np.stack(pixels[scored : scored + choice.batch_size])
        engine.score(batch)
        scored += len(batch)
    score_ms = 1000 * (time.perf_counter() - began) / scored
    return Probe(
        listed=listed,
        sampled=tried,
        failed=tried - len(pixels),
        model=model.name,
        engine=choice.engine,
        precision=choice.precision,
        fetch_per_s=len(images) / max(fetch_s, 1e-9),
        decode_ms=1000 * decode_s / tried,
        score_ms=score_ms,
        cores=os.cpu_count() or 1,
    )


def _sample(listed: Iterable[InputEntry]) -> tuple[int, list[InputEntry]]:
    """How many there are, and SAMPLE of them, each as likely as the other (reservoir sampling)."""
    chance = random.Random(0)  # noqa: S311
    chosen: list[InputEntry] = []
    count = 0
    for count, found in enumerate(listed, start=1):
        if len(chosen) < SAMPLE:
            chosen.append(found)
        elif (place := chance.randrange(count)) < SAMPLE:
            chosen[place] = found
    chance.shuffle(chosen)
    return count, chosen


def _fetch(uris: list[str], job: LabelJob, seconds: float) -> tuple[list[bytes], float]:
    """What there was time for, as one worker fetches (empty: it failed); and how long it took."""
    fetcher = Fetcher(job)

    def fetch(uri: str) -> bytes:
        try:
            return fetcher.fetch(uri).image_bytes
        except ImageError:
            return b""

    images: list[bytes] = []
    began = time.perf_counter()
    with ThreadPoolExecutor(job.fetch_threads, thread_name_prefix="probe") as threads:
        held = 0
        for image_bytes in prefetch_map(fetch, uris, threads, job.fetch_threads):
            images.append(image_bytes)
            held += len(image_bytes)
            if held > SAMPLE_BYTES or time.perf_counter() - began > seconds:
                break
    return images, time.perf_counter() - began

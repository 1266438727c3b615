"""A worker that reads nothing and scores nothing: what is left is the machinery. Imported by the workers of scripts/bench_scale.py."""

from typing import Any

import numpy as np

from mlcls_ray.errors import Status
from mlcls_ray.job.workers import LabelWorker, WorkerSpec
from mlcls_ray.stages.read import ImageRead, ReadImages


class UnreadImages(ReadImages):
    """Each row as if its image had been read."""

    def read(self, uri: str, keep_bytes: bool) -> ImageRead:
        width, height = self.options.preprocess.input_size
        pixels = np.zeros((height, width, 3), np.uint8)
        return ImageRead(Status.OK, "", (pixels,), width=640, height=480, format="jpeg", content_hash="0" * 32)


class NullEngine:
    """Scores that cost nothing."""

    name, precision = "null", "fp32"

    def warm_up(self, batch_size: int) -> None:
        """Nothing to load."""

    def score(self, pixels: np.ndarray) -> np.ndarray:
        return np.random.default_rng(len(pixels)).random((len(pixels), 80), dtype=np.float32) ** 8


class NullWorker(LabelWorker):
    """The fused worker with nothing inside."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec)
        self.read: Any = UnreadImages(spec.read)
        self.finish.score.engine = NullEngine()

"""Stages that read nothing and score nothing: what is left is the machinery. Loaded by the workers of `scripts/bench --scale`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mlcls_ray.config import LabelJob
from mlcls_ray.engines.autotune import EngineConfig
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.job.model_source import ModelSource
from mlcls_ray.job.pipeline import STAGES
from mlcls_ray.stages.decode import Decode, DecodedImage
from mlcls_ray.stages.read import Read, ReadImage
from mlcls_ray.stages.score import Score, Scorer, Scores, as_struct
from mlcls_ray.stages.select import Select
from mlcls_ray.stages.spec import ModelSpec, Provenance, RunSpec, model_column, model_rows


class NullRead(Read):
    """Each file as if it had been read."""

    def read(self, uri: str) -> ReadImage:
        return ReadImage(content_hash="0" * 32)


class NullDecode(Decode):
    """Each image as if it had been decoded."""

    def decode_image(self, image_bytes: bytes, out: dict[str, np.ndarray]) -> DecodedImage:
        return DecodedImage(width=640, height=480, format="jpeg")


class NullEngine:
    """Scores that cost nothing."""

    name, precision = "null", "fp32"

    def warm_up(self, batch_size: int) -> None:
        """Nothing to load."""

    def score(self, pixels: np.ndarray) -> np.ndarray:
        return np.random.default_rng(len(pixels)).random((len(pixels), 80), dtype=np.float32) ** 8


class NullScore(Score):
    """Each image as if it had been scored."""

    def make_scorer(self, model: ModelSpec, spec: RunSpec) -> Scorer:
        return Scorer(NullEngine(), len(model.vocabulary), model.engine.batch_size)


NULL_STAGES = (NullRead, NullDecode, NullScore, *STAGES[3:])


def label_rows(first: int, count: int, classes: int) -> pa.Table:
    """Rows of a label table with the row ids from `first` on, as a run over an object store would write them."""

    def objects(value: str) -> np.ndarray:
        return np.array([value] * count, dtype=object)

    ids, numbers = np.arange(first, first + count), np.full(count, 640, np.int32)
    scores = np.random.default_rng(0).random((count, classes), dtype=np.float32) ** 8
    batch = {
        "row_id": ids, "uri": np.array([f"s3://bucket/photos/{row_id:012d}.jpg" for row_id in ids], dtype=object),
        "status": objects("ok"), "error_message": objects(""), "attempts": np.ones(count, np.int16),
        "width": numbers, "height": numbers, "format": objects("jpeg"), "size_bytes": numbers,
        "mtime": np.full(count, np.datetime64("2026-01-01", "us")), "etag": objects(""), "content_hash": objects("0" * 32),
        model_column("m"): as_struct(Scores(objects("ok"), objects(""), scores)),
    }  # fmt: skip
    model = ModelSpec(
        source=ModelSource("m", ""),
        preprocess=Preprocess(size=(32, 32)),
        vocabulary=tuple(f"class {number}" for number in range(classes)),
        thresholds=np.full(classes, 0.5, np.float32),
        engine=EngineConfig(engine="paddle", precision="fp32", reason=""),
        provenance=Provenance("m", *["a" * 64] * 6),
        out="",
    )
    spec = RunSpec(job=LabelJob(), run_id="r", rows=count, models=(model,))
    return model_rows(Select(spec)(batch), "m")

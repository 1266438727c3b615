"""`RunSpec`: the argument of every stage. All workers of a run get the same one; it is small, because it travels to each of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import EngineConfig
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.labels.label_map import ResolvedLabelMap
from mlcls_ray.models.artifact import Model

Batch = dict[str, Any]
"""Columns by name: numpy arrays, or Arrow arrays where they are structs."""


class ModelSource(Protocol):
    """The place that a worker gets a model from. Opening it may copy files to this machine."""

    def open(self, s3: S3Options) -> Model: ...


class Provenance(NamedTuple):
    """The columns that are the same in each row of a run."""

    model: str
    model_fingerprint: str
    preprocess_fingerprint: str
    engine: str
    precision: str
    threshold_id: str
    run_id: str
    run_number: int = 0


class ModelSpec(NamedTuple):
    """One model of a run."""

    source: ModelSource
    preprocess: Preprocess
    vocabulary: tuple[str, ...]
    thresholds: np.ndarray
    """float32 [C]."""
    engine: EngineConfig
    provenance: Provenance
    out: str
    """The output that the model's annotated images are written to."""
    label_map: ResolvedLabelMap | None = None
    """Other names for the labels; None: the vocabulary's."""

    @property
    def label_names(self) -> tuple[str | None, ...]:
        """The label of each class; None for one that gives none."""
        return self.label_map.names if self.label_map else self.vocabulary

    @property
    def name(self) -> str:
        return self.provenance.model


class RunSpec(NamedTuple):
    """A run, as its workers need to know it."""

    job: LabelJob
    run_id: str
    rows: int
    """Rows of the manifest."""
    models: tuple[ModelSpec, ...]
    annotated_folder: str = "annotated"
    """The folder for annotated images in each model's output."""
    device: Device = Device("cpu")
    """In a worker: the device that it runs on."""
    engine_threads: int = 1
    suspects: frozenset[int] = frozenset()
    """Rows that were in hand when a device was lost, more than once: no card decodes them."""

    @property
    def preprocesses(self) -> tuple[Preprocess, ...]:
        """The preprocessings that give different pixels; models that agree share them."""
        return distinct_preprocesses(model.preprocess for model in self.models)

    @property
    def batch_size(self) -> int:
        """Images that one model scores at once, at most."""
        return max(model.engine.batch_size for model in self.models)


class Stage(Protocol):
    """One stage of a job."""

    uses_device: ClassVar[bool]
    """True if its worker needs the job's device. One thread at a time calls such a stage; stages before the first one run ahead."""
    seconds: dict[str, float]
    """Time spent since the start, by activity: `fetch` (waiting), `decode` (CPU), `decode_on_card`, `score`."""

    def __init__(self, spec: RunSpec) -> None: ...

    def __call__(self, batch: Any, /) -> Any: ...


def distinct_preprocesses(preprocesses: Iterable[Preprocess]) -> tuple[Preprocess, ...]:
    """Leave out preprocessings that give the pixels of an earlier one."""
    distinct: dict[object, Preprocess] = {}
    for preprocess in preprocesses:
        distinct.setdefault(preprocess.geometry, preprocess)
    return tuple(distinct.values())


def pixels_column(preprocess: Preprocess) -> str:
    """Name the column with the pixels that a preprocessing makes; models that agree share it."""
    return f"{schema.PIXELS} {' '.join(map(str, preprocess.geometry))}"


def model_column(name: str) -> str:
    """Name the struct column of one model: its scores, and later its rows of the label table."""
    return f"{schema.MODEL} {name}"


def model_rows(table: pa.Table, name: str) -> pa.Table:
    """Take one model's rows of the label table out of its struct column."""
    column = table.column(model_column(name))
    return pa.table(column.flatten(), schema=pa.schema(list(column.type)))

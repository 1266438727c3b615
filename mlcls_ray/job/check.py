"""The checks of a job: whatever can be known to fail is found here, before Ray starts and the first image is read."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device, parse_device
from mlcls_ray.engines.autotune import check_request
from mlcls_ray.engines.devices import ON_PADDLE, check_device
from mlcls_ray.engines.load import check_embeds, embedding_engine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.job.cluster import starts_ray
from mlcls_ray.job.resume import check_same_run, unfinished_run
from mlcls_ray.job.surroundings import check_surroundings
from mlcls_ray.labels.label_map import ResolvedLabelMap
from mlcls_ray.labels.thresholds import ResolvedThresholds
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.convert.onnx import cached_onnx
from mlcls_ray.models.features import converted_with_features
from mlcls_ray.models.outdated import outdated_note
from mlcls_ray.models.zoo import MODEL_NAMES
from mlcls_ray.storage.inputs.listing import check_inputs
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import is_local, path_of_uri, redact_url, uri_of_path
from mlcls_ray.table import layout
from mlcls_ray.table.publish import check_format
from mlcls_ray.table.records import RunRecord, check_clock, new_run_id, read_record

NO_OUTPUT = "no output: give a folder or an s3:// uri (--out)"


class CheckedModel(NamedTuple):
    """One model of a job, and the output that its rows go to."""

    job: LabelJob
    """The job as if it had this model alone."""
    model: Model
    thresholds: ResolvedThresholds
    label_map: ResolvedLabelMap
    store: Store

    @property
    def name(self) -> str:
        return self.model.name


class CheckedJob(NamedTuple):
    """A job that passed the checks."""

    job: LabelJob
    device: Device
    run_id: str
    models: tuple[CheckedModel, ...]
    records: tuple[RunRecord | None, ...]
    """For each model the `run.json` of the run that is resumed; None for a new run."""
    committed: tuple[bool, ...]
    """For each model whether the run is committed already."""

    @property
    def pending(self) -> CheckedJob:
        """The job with the models whose run is not committed."""
        left = [number for number, is_committed in enumerate(self.committed) if not is_committed]
        models, records = tuple(self.models[number] for number in left), tuple(self.records[number] for number in left)
        return self._replace(models=models, records=records, committed=(False,) * len(left))


def check_job(job: LabelJob) -> CheckedJob:
    """Check job, inputs, models, thresholds and outputs. Nothing is written but a probe of each output.

    Raises:
        UsageError: names the field, the value and the way out.
    """
    if not job.out:
        raise UsageError(NO_OUTPUT)
    device = parse_device(job.device)
    if starts_ray(job.ray_address):
        check_surroundings()
    check_request(job.engine, job.precision, device)
    check_format(job.format, job.out)
    if not job.retry:
        check_inputs(job.inputs, job.s3)
    job = _with_absolute_paths(job)
    opened = [open_model(source, job.s3) for source in job.model_sources]
    for note in filter(None, map(outdated_note, opened)):
        print(note, file=sys.stderr)
    if job.embeddings:
        job = _with_embedding_engine(job, opened, device)
    known = tuple(name for model in opened for name in model.vocabulary)
    models = tuple(
        _check_model(job, model, out, source, known)
        for model, (source, out) in zip(opened, _outputs(job, opened), strict=True)
    )
    run_id = job.run_id or next(filter(None, map(_unfinished, models)), None) or new_run_id()
    records = tuple(read_record(model.store, run_id) for model in models)
    for model, record in zip(models, records, strict=True):
        if record is not None:
            check_same_run(record, model.model, model.thresholds, model.label_map, model.job)
    committed = tuple(model.store.read(layout.success(run_id)) is not None for model in models)
    return CheckedJob(job, device, run_id, models, records, committed)


def check_before_ray(checked: CheckedJob, is_here: bool) -> None:
    """Check the device, and whether its engine can have the models, as far as this machine can know it.

    Args:
        is_here: Ray will be started on this machine, which scores. If not, the device is another machine's.

    Raises:
        UsageError: the device cannot be used, or a model cannot be converted; with the way out.
    """
    device, engine = checked.device, checked.job.engine
    if is_here:
        check_device(device, engine)
    if device.kind == "gpu" and engine not in ON_PADDLE:
        for model in checked.pending.models:
            _check_converts(model.model, is_here)


def _check_converts(model: Model, is_here: bool) -> None:
    """Convert a model into the cache here, where an error is seen at once. Where there is no converter, a worker's machine may have one."""
    try:
        cached_onnx(model)
    except UsageError:
        if is_here:
            raise
    except RunError as error:
        raise UsageError(f"{error}; use --device cpu --engine paddle") from None


def _check_model(job: LabelJob, model: Model, out: str, source: str, known: Sequence[str]) -> CheckedModel:
    """Check one model of a job. `known`: the classes of all of them."""
    thresholds = job.threshold.resolve(model.vocabulary, model.thresholds)
    label_map = job.map.resolve(model.vocabulary, known)
    store = Store(out, job.s3)
    store.check_writable()
    _check_ours(store)
    check_clock(store)
    changes = {"model": source, "models": (), "out": out, "map": job.map.only(model.vocabulary)}
    alone = job.model_copy(update=changes)
    return CheckedModel(alone, model, thresholds, label_map, store)


def _outputs(job: LabelJob, opened: Sequence[Model]) -> list[tuple[str, str]]:
    """Source and output of each model: OUT, or OUT/NAME where there are several."""
    if not job.models:
        return [(job.model, job.out)]
    twice = [name for name, count in Counter(model.name for model in opened).items() if count > 1]
    if twice:
        raise UsageError(f"models: '{twice[0]}' is there more than once, and each model's output is named after it")
    out = job.out.rstrip("/")
    return [(source, f"{out}/{model.name}") for source, model in zip(job.models, opened, strict=True)]


def _unfinished(model: CheckedModel) -> str | None:
    return unfinished_run(model.store, model.job, model.model, model.thresholds, model.label_map)


def _with_absolute_paths(job: LabelJob) -> LabelJob:
    """Make paths absolute: the workers of a cluster have another working directory than the driver."""
    out = uri_of_path(path_of_uri(job.out)) if is_local(job.out) else job.out
    return job.model_copy(
        update={"out": out, "model": _absolute(job.model), "models": tuple(map(_absolute, job.models))}
    )


def _absolute(source: str) -> str:
    if source in MODEL_NAMES or not is_local(source) or not os.path.isdir(path_of_uri(source)):
        return source
    return uri_of_path(path_of_uri(source))


def _with_embedding_engine(job: LabelJob, opened: Sequence[Model], device: Device) -> LabelJob:
    """Choose an engine that gives embeddings, and convert the models for it here, where an error is seen at once.

    Raises:
        UsageError: the job's engine gives none, or a model has no features that we know.
    """
    engine = embedding_engine(device) if job.engine == "auto" else job.engine
    check_embeds(engine, job.precision)
    for model in opened:
        converted_with_features(model)
    return job.model_copy(update={"engine": engine})


def _check_ours(store: Store) -> None:
    """Refuse an output folder that holds something else."""
    names = [name for name in store.names("") if not name.startswith(".")]
    if names and layout.RUNS not in names and layout.LATEST not in names:
        raise UsageError(
            f"output '{redact_url(store.root)}' holds something else ({', '.join(names[:3])}): give an empty or a new folder"
        )

"""The plan of a run: everything that can be known to fail is checked here, before the first image is read."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import islice
from typing import NamedTuple

import numpy as np

from mlcls_ray import __version__
from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device, parse_device
from mlcls_ray.engines.autotune import EngineConfig
from mlcls_ray.engines.load import check_embeds
from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.duplicates import read_duplicates, write_duplicates
from mlcls_ray.job.engine import choose_for_run
from mlcls_ray.job.pools import Measured, Pools, size_pools
from mlcls_ray.job.resume import check_same_run, new_run_id, public_config, unfinished_run
from mlcls_ray.labels.thresholds import resolve, threshold_id
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.features import converted_with_features
from mlcls_ray.models.zoo import OFFICIAL, STARTER
from mlcls_ray.stages.read import ReadOptions
from mlcls_ray.storage.inputs.listing import InputEntry, check_inputs, list_inputs
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import is_local, path_of_uri, redact_url, uri_of_path
from mlcls_ray.table import layout
from mlcls_ray.table.attempts import Attempt, start_attempts
from mlcls_ray.table.incremental import open_changes, open_failed
from mlcls_ray.table.ledger import RowSet, count_bits
from mlcls_ray.table.manifest import copy_manifest, to_parquet, write_manifest
from mlcls_ray.table.publish import check_format
from mlcls_ray.table.records import RunRecord, read_record

NO_OUTPUT = "no output: give a folder or an s3:// uri (--out)"
PACKAGES = ("ray", "paddlepaddle", "pyarrow", "numpy", "pillow")


class Prepared(NamedTuple):
    """What is checked before Ray starts."""

    job: LabelJob
    store: Store
    run_id: str
    model: Model
    thresholds: np.ndarray
    device: Device
    record: RunRecord | None
    """Of the run that is resumed; None for a new one."""
    is_committed: bool


class Plan(NamedTuple):
    """A run that can start: its manifest is frozen and its ledger read."""

    prepared: Prepared
    record: RunRecord
    nodes: Sequence[Node]
    attempt: Attempt
    copies: RowSet
    """Rows whose bytes are those of another row (`dedupe`): they get its row of the table instead of a score of their own."""
    measured: Measured | None
    """By an earlier wave."""
    pools: Pools
    others: Sequence[Plan] = ()
    """Of further models that score the same images in the same pass: the same rows, each with an output of its own."""

    @property
    def models(self) -> Sequence[Plan]:
        """The plan of each model, this one's first."""
        return (self, *self.others)

    @property
    def rows_left(self) -> int:
        """How many rows are to be scored: neither in a fragment nor copies."""
        return self.record.rows - count_bits(self.skipped)

    @property
    def skipped(self) -> np.ndarray:
        """One bit a row, uint8: what is not to be scored."""
        return self.attempt.done.bits | self.copies.bits


def prepare(job: LabelJob) -> Prepared:
    """Check job, inputs, model, thresholds and output. Nothing is written but a probe of the output.

    Raises:
        UsageError: names the field, the value and the way out.
    """
    if not job.out:
        raise UsageError(NO_OUTPUT)
    job = _with_absolute_paths(job)
    device = parse_device(job.device)
    check_format(job.format)
    if not job.retry:
        check_inputs(job.inputs, job.s3)
    model = open_model(job.model, job.s3)
    thresholds = resolve(job.threshold, model.vocabulary, model.thresholds)
    if job.embeddings:
        job = _with_embedder(job, model, device)
    store = Store(job.out, job.s3)
    store.check_writable()
    _check_ours(store)
    run_id = job.run_id or unfinished_run(store, job, model, thresholds) or new_run_id()
    record = read_record(store, run_id)
    if record is not None:
        check_same_run(record, model, thresholds, job)
    is_committed = store.read(layout.success(run_id)) is not None
    return Prepared(job, store, run_id, model, thresholds, device, record, is_committed)


def _with_absolute_paths(job: LabelJob) -> LabelJob:
    """Workers of a cluster have another working directory than the driver."""
    changes = {"out": uri_of_path(path_of_uri(job.out)) if is_local(job.out) else job.out}
    if is_local(job.model) and os.path.isdir(path_of_uri(job.model)) and job.model not in (STARTER, *OFFICIAL):
        changes["model"] = uri_of_path(path_of_uri(job.model))
    return job.model_copy(update=changes)


def _with_embedder(job: LabelJob, model: Model, device: Device) -> LabelJob:
    """The job with an engine that gives embeddings; the graph for them is made here, where an error is seen at once.

    Raises:
        UsageError: the engine that the job asks for gives none, or the model has none that we know.
    """
    engine = ("openvino" if device.kind == "cpu" else "onnxruntime") if job.engine == "auto" else job.engine
    check_embeds(engine, job.precision)
    converted_with_features(model)
    return job.model_copy(update={"engine": engine})


def list_manifest(prepared: Prepared) -> int:
    """List the inputs into the manifest; returns the number of rows.

    Raises:
        UsageError: no image was found.
    """
    rows = write_manifest(prepared.store, prepared.run_id, _listed(prepared.job))
    if rows == 0:
        raise _nothing_found(prepared.job)
    return rows


def list_work(prepared: Prepared) -> int | None:
    """List into the manifest what an incremental job or a retry has to label; returns the number of rows.

    None where there is nothing to do. What vanished is recorded by an incremental job.

    Raises:
        UsageError: no image was found at all; a folder that is not mounted must not look like one whose images vanished.
    """
    job, store, run_id = prepared.job, prepared.store, prepared.run_id
    if job.retry:
        with open_failed(store, job.retry) as failed:
            return write_manifest(store, run_id, failed, job.limit) or None
    inputs = public_config(job)["inputs"]
    fingerprints = (prepared.model.fingerprint, prepared.model.preprocess_fingerprint(job.decode))
    with open_changes(store, fingerprints, inputs, _listed(job)) as changes:
        if changes.listed == 0:
            raise _nothing_found(job)
        rows = write_manifest(store, run_id, changes.new())
        vanished = changes.vanished() if job.limit is None else None  # beyond a limit nobody looked
        if vanished:
            store.write(layout.vanished(run_id), to_parquet(vanished))
    return rows if rows or vanished else None


def _nothing_found(job: LabelJob) -> UsageError:
    return UsageError(f"no image found in {', '.join(redact_url(text) for text in job.inputs)}")


def _listed(job: LabelJob) -> Iterator[InputEntry]:
    return islice(list_inputs(job.inputs, job.s3, job.uri_column), job.limit)


def freeze(
    prepared: Prepared, nodes: Sequence[Node], listed: int | None = None, others: Sequence[Prepared] = ()
) -> Plan:
    """List the inputs into the manifest (unless that was done: `listed` rows), read the ledger and size the pools.

    `others`: of further models in the same pass; each gets a copy of the manifest.

    Raises:
        UsageError: no image was found, or the cluster cannot run the job.
    """
    job, store, run_id = prepared.job, prepared.store, prepared.run_id
    record = prepared.record
    if record is None:
        rows = list_manifest(prepared) if listed is None else listed
        pools = _pools(prepared, nodes, rows)
        if job.dedupe:
            write_duplicates(store, run_id, rows, read_options(prepared, rows), pools)
        choice = choose_for_run(job, prepared.model, prepared.device, len(nodes), pools.engine_threads, rows)
        record = _new_record(prepared, nodes, rows, choice)
    models = [(prepared, record), *((one, _copied(one, prepared, record, nodes)) for one in others)]
    return next_attempt(models, nodes, read_duplicates(store, run_id, record.rows), None)


def _copied(prepared: Prepared, first: Prepared, like: RunRecord, nodes: Sequence[Node]) -> RunRecord:
    """The record of a further model over the same manifest.

    Raises:
        UsageError: its run of this name is over other inputs.
    """
    record, job = prepared.record, prepared.job
    if record is None:
        rows = copy_manifest(first.store, prepared.store, prepared.run_id)
        threads = _pools(prepared, nodes, rows).engine_threads
        choice = choose_for_run(job, prepared.model, prepared.device, len(nodes), threads, rows)
        record = _new_record(prepared, nodes, rows, choice)
    if record.rows != like.rows:
        raise UsageError(
            f"run '{record.run_id}' has {record.rows:,} rows in '{redact_url(prepared.store.root)}' and {like.rows:,} in "
            f"'{redact_url(first.store.root)}': give another --run-id"
        )
    return record


def next_attempt(
    models: Sequence[tuple[Prepared, RunRecord]], nodes: Sequence[Node], copies: RowSet, measured: Measured | None
) -> Plan:
    """A new attempt at what is left of a run (of each model), cut for what an earlier wave measured, if one did."""
    (prepared, record), stores = models[0], [one.store for one, _ in models]
    attempts = start_attempts(stores, prepared.run_id, record.rows)
    remaining = record.rows - len(attempts[0].done)
    batch_size = max((one.choice.batch_size for _, one in models if one.choice), default=None)
    pools = _pools(prepared, nodes, remaining, measured, batch_size, [one for one, _ in models[1:]])
    plans = [
        Plan(one, told, nodes, attempt, copies, measured, pools)
        for (one, told), attempt in zip(models, attempts, strict=True)
    ]
    return plans[0]._replace(others=plans[1:])


def _pools(
    prepared: Prepared,
    nodes: Sequence[Node],
    rows: int,
    measured: Measured | None = None,
    batch_size: int | None = None,
    others: Sequence[Prepared] = (),
) -> Pools:
    sizes = [one.input_size for one in preprocesses(prepared, others)]
    pixel_bytes = sum(width * height * 3 for width, height in sizes)
    return size_pools(prepared.job, prepared.device, nodes, max(rows, 1), pixel_bytes, measured, batch_size)


def read_options(prepared: Prepared, rows: int, others: Sequence[Prepared] = ()) -> ReadOptions:
    """What the reading stages of a run of so many rows are told; `others`: of further models in the same pass."""
    job = prepared.job
    annotated = {"none": 0, "all": rows}.get(str(job.annotate), job.annotate)
    return ReadOptions(
        preprocess=prepared.model.preprocess,
        s3=job.s3,
        max_bytes=job.max_bytes,
        max_pixels=job.max_pixels,
        timeout_s=job.timeout_s,
        attempts=job.fetch_attempts,
        threads=job.fetch_threads,
        rows=rows,
        annotate=int(annotated),
        decode=job.decode,
        others=preprocesses(prepared, others)[1:],
    )


def preprocesses(prepared: Prepared, others: Sequence[Prepared]) -> tuple[Preprocess, ...]:
    """The preprocessings that give different pixels, the first model's first."""
    distinct: dict[object, Preprocess] = {}
    for one in (prepared, *others):
        distinct.setdefault(one.model.preprocess.geometry, one.model.preprocess)
    return tuple(distinct.values())


def _check_ours(store: Store) -> None:
    """Refuse an output folder that holds something else."""
    names = [name for name in store.names("") if not name.startswith(".")]
    if names and layout.RUNS not in names and layout.LATEST not in names:
        raise UsageError(
            f"output '{redact_url(store.root)}' holds something else ({', '.join(names[:3])}): give an empty or a new folder"
        )


def _new_record(prepared: Prepared, nodes: Sequence[Node], rows: int, choice: EngineConfig) -> RunRecord:
    model = prepared.model
    record = RunRecord(
        run_id=prepared.run_id,
        rows=rows,
        model=model.name,
        model_fingerprint=model.fingerprint,
        preprocess_fingerprint=model.preprocess_fingerprint(prepared.job.decode),
        threshold_id=threshold_id(prepared.thresholds),
        thresholds={name: float(value) for name, value in zip(model.vocabulary, prepared.thresholds, strict=True)},
        config=public_config(prepared.job),
        versions={
            "mlcls_ray": __version__,
            "python": platform.python_version(),
            **{one: version(one) for one in PACKAGES},
        },
        hardware={"nodes": len(nodes), "cpus": [node.cpus for node in nodes], "machine": platform.machine()},
        choice=choice,
        created_at=datetime.now(timezone.utc),
    )
    prepared.store.write_json(layout.run_json(prepared.run_id), record.model_dump(mode="json"))
    return record

"""The plan of a run: its inputs are frozen into the manifest, its engines chosen, its ledger read and its pools sized."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np

from mlcls_ray import __version__
from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import EngineConfig, fixed_batch
from mlcls_ray.engines.load import engine_spec
from mlcls_ray.engines.machine import package_version
from mlcls_ray.errors import UsageError
from mlcls_ray.job.check import CheckedJob, CheckedModel
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.duplicates import copy_duplicates, read_duplicates, write_duplicates
from mlcls_ray.job.listing import Listed, list_manifest
from mlcls_ray.job.model_source import choose_engine, model_source
from mlcls_ray.job.placement import preprocess_fingerprint
from mlcls_ray.job.pools import Pools, size_pools
from mlcls_ray.job.resume import public_config
from mlcls_ray.stages.spec import ModelSpec, Provenance, RunSpec, distinct_preprocesses
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table import layout
from mlcls_ray.table.attempts import start_attempt
from mlcls_ray.table.ledger import Fragment, RowSet, count_bits
from mlcls_ray.table.manifest import copy_manifest
from mlcls_ray.table.records import RunRecord, next_number
from mlcls_ray.terminal import SILENT, Steps

PACKAGES = ("ray", "pyarrow", "numpy", "pillow", "paddlepaddle")
"""Packages whose versions are recorded, besides those of the engine, where they are installed: a machine may have no Paddle."""


class ModelRun(NamedTuple):
    """One model of a run."""

    checked: CheckedModel
    record: RunRecord
    accepted: Sequence[Fragment]
    """Fragments of earlier attempts."""

    @property
    def name(self) -> str:
        return self.checked.name

    @property
    def store(self) -> Store:
        return self.checked.store


class Run(NamedTuple):
    """An attempt at a run that can start."""

    job: LabelJob
    device: Device
    run_id: str
    rows: int
    models: tuple[ModelRun, ...]
    """They score the same rows, each into an output of its own."""
    attempt: int
    done: RowSet
    """Rows in fragments of earlier attempts."""
    copies: RowSet
    """Rows whose bytes are those of another row (`dedupe`): they get a copy of its row instead of a score of their own."""
    nodes: Sequence[Node]
    pools: Pools

    @property
    def store(self) -> Store:
        """The output that the manifest is read from."""
        return self.models[0].store

    @property
    def stores(self) -> dict[str, Store]:
        """The output of each model, by the model's name."""
        return {model.name: model.store for model in self.models}

    @property
    def skip(self) -> np.ndarray:
        """The rows that are not to be scored, one bit each: uint8."""
        return self.done.bits | self.copies.bits

    @property
    def rows_left(self) -> int:
        """The number of rows that are to be scored: neither in a fragment nor copies."""
        return self.rows - count_bits(self.skip)

    def worker_spec(self) -> RunSpec:
        """Describe the run as its workers need to know it. Ships the models' files where the workers' machines may lack them."""
        return RunSpec(
            job=self.job,
            run_id=self.run_id,
            rows=self.rows,
            models=tuple(_model_spec(model, len(self.nodes)) for model in self.models),
            annotated_folder=layout.annotated_folder(self.run_id),
            device=self.device,
            engine_threads=self.pools.engine_threads,
        )


def plan_run(checked: CheckedJob, nodes: Sequence[Node], listed: Listed | None = None, steps: Steps = SILENT) -> Run:
    """List the inputs into the manifest (unless that was done: `listed`), choose engines, read the ledger and size the pools.

    The manifest, and the rows that are copies, are listed into the first model's output and copied to the others'.

    Raises:
        UsageError: no image was found, or the cluster cannot run the job.
    """
    first, run_id = checked.models[0], checked.run_id
    resumed = checked.records[0]
    if listed is None:
        listed = Listed(resumed.rows) if resumed else list_manifest(checked, steps)
    rows = listed.rows
    pools = _size_pools(checked, nodes, rows)
    if checked.job.dedupe and resumed is None:
        steps.say("looking for identical files")
        write_duplicates(first.store, run_id, rows, checked.job, pools)
    records = []
    for model, existing in zip(checked.models, checked.records, strict=True):
        record = existing
        if record is None:
            if model is not first:
                copy_manifest(first.store, model.store, run_id)
                copy_duplicates(first.store, model.store, run_id)
            threads = pools.engine_threads
            steps.say(f"choosing an engine for {model.name}")
            job = model.job.model_copy(update={"placement": pools.placement})  # what `auto` became
            engine = choose_engine(job, model.model, model.thresholds.values, checked.device, len(nodes), threads, rows)
            record = _write_record(model, run_id, nodes, listed, engine, pools.placement)
        if record.rows != rows:
            raise UsageError(
                f"run '{run_id}' has {record.rows:,} rows in '{redact_url(model.store.root)}' and {rows:,} in "
                f"'{redact_url(first.store.root)}': give another --run-id"
            )
        records.append(record)
    return start_run(checked, records, nodes, read_duplicates(first.store, run_id, rows))


def start_run(checked: CheckedJob, records: Sequence[RunRecord], nodes: Sequence[Node], copies: RowSet) -> Run:
    """Start a new attempt at what is left of a run, on the nodes that are alive."""
    rows = records[0].rows
    attempt = start_attempt([model.store for model in checked.models], checked.run_id, rows)
    return Run(
        job=checked.job,
        device=checked.device,
        run_id=checked.run_id,
        rows=rows,
        models=tuple(map(ModelRun, checked.models, records, attempt.accepted)),
        attempt=attempt.number,
        done=attempt.done,
        copies=copies,
        nodes=nodes,
        pools=_size_pools(checked, nodes, rows - len(attempt.done), [record.engine for record in records]),
    )


def next_attempt(run: Run, nodes: Sequence[Node], copies: RowSet) -> Run:
    """Start another attempt at a run of which rows are left."""
    models = tuple(model.checked for model in run.models)
    records = tuple(model.record for model in run.models)
    checked = CheckedJob(run.job, run.device, run.run_id, models, records, (False,) * len(models))
    return start_run(checked, records, nodes, copies)


def _size_pools(checked: CheckedJob, nodes: Sequence[Node], rows: int, engines: Sequence[EngineConfig] = ()) -> Pools:
    """Size the pools; `engines`: of the models, where they are chosen already."""
    preprocesses = distinct_preprocesses(model.model.preprocess for model in checked.models)
    pixel_bytes = sum(width * height * 3 for width, height in (preprocess.input_size for preprocess in preprocesses))
    batch_size = max(
        (engine.batch_size for engine in engines), default=fixed_batch(checked.job.batch_size, checked.device)
    )
    rates = [engine.images_per_s for engine in engines]
    rate = 1 / sum(1 / rate for rate in rates if rate) if rates and all(rates) else None
    return size_pools(checked.job, checked.device, nodes, max(rows, 1), pixel_bytes, batch_size, rate)


def _write_record(
    checked: CheckedModel, run_id: str, nodes: Sequence[Node], listed: Listed, engine: EngineConfig, placement: str
) -> RunRecord:
    model = checked.model
    record = RunRecord(
        run_id=run_id,
        number=next_number(checked.store),
        rows=listed.rows,
        model=model.name,
        model_fingerprint=model.fingerprint,
        preprocess_fingerprint=preprocess_fingerprint(checked.job, model),
        threshold_id=checked.label_map.added_to(checked.thresholds.id),
        thresholds={
            name: float(value) for name, value in zip(model.vocabulary, checked.thresholds.values, strict=True)
        },
        label_map=checked.label_map.changed,
        config=public_config(checked.job),
        versions={
            "mlcls_ray": __version__,
            "python": platform.python_version(),
            **_versions((*PACKAGES, *engine_spec(engine.engine).packages)),
        },
        hardware={
            "nodes": len(nodes),
            "cpus": [node.cpus for node in nodes],
            "machine": platform.machine(),
            "placement": placement,
        },
        engine=engine,
        left_out=dict(listed.left_out),
        changes=listed.changes,
        created_at=datetime.now(timezone.utc),
    )
    checked.store.write_json(layout.run_json(run_id), record.model_dump(mode="json"))
    return record


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    return {package: version for package in packages if (version := package_version(package))}


def _model_spec(model: ModelRun, nodes: int) -> ModelSpec:
    checked, record = model.checked, model.record
    return ModelSpec(
        source=model_source(checked.job, checked.model, nodes),
        preprocess=checked.model.preprocess,
        vocabulary=checked.model.vocabulary,
        thresholds=checked.thresholds.values,
        engine=record.engine,
        provenance=Provenance(
            model=record.model,
            model_fingerprint=record.model_fingerprint,
            preprocess_fingerprint=record.preprocess_fingerprint,
            engine=record.engine.engine,
            precision=record.engine.precision,
            threshold_id=record.threshold_id,
            run_id=record.run_id,
            run_number=record.number,
        ),
        out=checked.store.root,
        label_map=checked.label_map,
    )

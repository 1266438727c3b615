"""Find the run that a job resumes. A run is the same one if what decides its rows, recorded in `run.json`, is the same."""

from __future__ import annotations

import re
from typing import Any

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import UsageError
from mlcls_ray.job.placement import preprocess_fingerprint
from mlcls_ray.labels.label_map import NO_MAP, ResolvedLabelMap
from mlcls_ray.labels.thresholds import ResolvedThresholds
from mlcls_ray.models.artifact import Model
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table import layout
from mlcls_ray.table.records import RunRecord, newest_record, read_record, read_records

UNNAMED_RUN = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")
"""Run ids as `new_run_id` makes them; they sort by time, if the clock was right."""
RUNS_LOOKED_AT = 20


def unfinished_run(
    store: Store, job: LabelJob, model: Model, thresholds: ResolvedThresholds, label_map: ResolvedLabelMap
) -> str | None:
    """Find the newest unnamed run that this same job began and did not commit."""
    unnamed = [name for name in store.names(layout.RUNS) if UNNAMED_RUN.fullmatch(name)]
    records = (read_record(store, run_id) for run_id in unnamed[-RUNS_LOOKED_AT:])
    same = [record for record in records if record and not _differences(record, model, thresholds, label_map, job)]
    newest = newest_record(same)
    return newest.run_id if newest and store.read(layout.success(newest.run_id)) is None else None


def labeled_before(store: Store, job: LabelJob) -> RunRecord | None:
    """Find the newest committed run over the inputs of a job; None for a job that asks what is new, or what failed, anyway."""
    if job.incremental or job.retry:
        return None
    inputs = public_config(job)["inputs"]
    records = read_records(store, store.names(layout.RUNS)).values()
    same = [record for record in records if record.config.get("inputs") == inputs and not record.relabeled_from]
    newest = newest_record(same)
    return newest if newest and store.read(layout.success(newest.run_id)) is not None else None


def check_same_run(
    record: RunRecord, model: Model, thresholds: ResolvedThresholds, label_map: ResolvedLabelMap, job: LabelJob
) -> None:
    """Check that a job may resume a run. Other inputs or another model would mix two tables in one.

    Raises:
        UsageError: names what differs.
    """
    for name, (before, now) in _differences(record, model, thresholds, label_map, job).items():
        raise UsageError(
            f"run '{record.run_id}' was started with {name} {before}, not with {now}; use another --run-id"
        )


def _differences(
    record: RunRecord, model: Model, thresholds: ResolvedThresholds, label_map: ResolvedLabelMap, job: LabelJob
) -> dict[str, tuple[object, object]]:
    """Compare what decides a run's rows: name → (then, now) where it is not the same."""
    config = public_config(job)
    values: dict[str, tuple[object, object]] = {
        "model": (record.model_fingerprint, model.fingerprint),
        "preprocessing": (record.preprocess_fingerprint, preprocess_fingerprint(job, model)),
        "threshold": (record.threshold_id.partition("+")[0], thresholds.id),
        "map": (record.resolved_map.id or NO_MAP, label_map.id or NO_MAP),
    }
    for name in ("inputs", "pages", "limit", "uri_column", "incremental", "retry", "embeddings"):
        before = record.config.get(
            name, LabelJob.model_fields[name].get_default()
        )  # a run of a version without this option
        values[name] = (before, config[name])
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def public_config(job: LabelJob) -> dict[str, Any]:
    """Return the job as `run.json` keeps it: uris without their query, user and password."""
    config = job.model_dump(mode="json")
    config["inputs"] = [redact_url(text) for text in job.inputs]
    return config

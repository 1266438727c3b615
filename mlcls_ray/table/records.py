"""The two files that describe a run: `run.json`, written at its start, and `_SUCCESS`, written at its end."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from mlcls_ray.engines.autotune import EngineConfig
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, count_statuses

SEARCHED_FOLDERS = 50
"""Folders of an output without runs in which `no_runs` looks for some."""


class RunRecord(BaseModel):
    """The content of `run.json`. The file is written when the run's manifest is complete; without it there is no run."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    rows: int
    model: str
    model_fingerprint: str
    preprocess_fingerprint: str
    threshold_id: str
    thresholds: dict[str, float]
    config: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, Any]
    """Provenance only: for a person who asks later what the run ran on. No code reads it."""
    engine: EngineConfig = Field(validation_alias=AliasChoices("engine", "choice"))
    """The engine that executes the network, and why it was chosen. Up to version 0.1 the key was `choice`."""
    relabeled_from: tuple[str, ...] = ()
    """The runs whose scores these labels were selected from; empty if a model was run."""
    created_at: datetime


class Success(BaseModel):
    """The content of `_SUCCESS`: the fragments of a committed run."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    rows: int
    statuses: dict[str, int]
    fragments: list[Fragment]
    seconds: float
    """Wall time of the command that committed the run, from the start of its workers."""
    stage_seconds: dict[str, float] = {}
    """Seconds that all workers of that command spent, by activity: fetch (waiting), decode (CPU), decode_on_card, score."""
    committed_at: datetime


def new_run_id() -> str:
    """Return the time in UTC, with four random characters so that two runs of one second differ. Sorts by time."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ-") + secrets.token_hex(2)


def read_record(store: Store, run_id: str) -> RunRecord | None:
    """Read a run's `run.json`; None if its manifest is not complete.

    Raises:
        UsageError: the file is not a run's record.
    """
    loaded = store.read_json(layout.run_json(run_id))
    try:
        return None if loaded is None else RunRecord.model_validate(loaded)
    except ValidationError as error:
        raise UsageError(
            f"{store.uri(layout.run_json(run_id))} is not a run's record: {error.errors()[0]['msg']}"
        ) from None


def read_success(store: Store, run_id: str) -> Success | None:
    """Read a run's `_SUCCESS`; None if it is not committed."""
    loaded: Any = store.read_json(layout.success(run_id))
    return None if loaded is None else Success.model_validate(loaded)


def read_successes(store: Store) -> dict[str, Success]:
    """Read `_SUCCESS` of all committed runs of an output, by run."""
    successes = {run_id: read_success(store, run_id) for run_id in store.names(layout.RUNS)}
    return {run_id: success for run_id, success in successes.items() if success is not None}


def make_visible(
    store: Store,
    run_id: str,
    fragments: Sequence[Fragment],
    seconds: float,
    stage_seconds: Mapping[str, float] | None = None,
) -> Success:
    """Write `_SUCCESS`, and let `latest.json` point to the run."""
    success = Success(
        run_id=run_id,
        rows=sum(fragment.rows for fragment in fragments),
        statuses=count_statuses(fragments),
        fragments=list(fragments),
        seconds=round(seconds, 3),
        stage_seconds={stage: round(spent, 3) for stage, spent in (stage_seconds or {}).items()},
        committed_at=datetime.now(timezone.utc),
    )
    store.write_json(layout.success(run_id), success.model_dump(mode="json"))
    latest = {
        "run_id": run_id,
        "labels": layout.labels_folder(run_id),
        "committed_at": success.committed_at.isoformat(),
    }
    store.write_json(layout.LATEST, latest)
    return success


def newest_record(records: Iterable[RunRecord | None]) -> RunRecord | None:
    """Return the record of the run that was started last; None if there is none."""
    return max((record for record in records if record), key=lambda record: record.created_at, default=None)


def run_ids(store: Store) -> list[str]:
    """List the runs of an output, sorted: the folders with a `run.json`. A folder without one belongs to a listing that did not end."""
    return [name for name in store.names(layout.RUNS) if store.read(layout.run_json(name)) is not None]


def no_runs(store: Store, what: str = "committed run") -> UsageError:
    """Make the error for an output without runs. It names the folders in it that have some: a job of several models writes such."""
    names = store.names("")[:SEARCHED_FOLDERS]
    outputs = [repr(store.uri(name)) for name in names if store.names(f"{name}/{layout.RUNS}")]
    hint = f": did you mean {' or '.join(outputs)}?" if outputs else ""
    return UsageError(f"'{store.root}' holds no {what}{hint}")

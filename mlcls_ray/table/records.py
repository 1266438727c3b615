"""What a run says of itself: `run.json` at its start, `_SUCCESS` at its end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from mlcls_ray.engines.autotune import EngineConfig
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment


class RunRecord(BaseModel):
    """`run.json`: what a run is. Written when its manifest is complete; its absence means that there is none."""

    model_config = ConfigDict(frozen=True, extra="ignore")

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
    engine: EngineConfig = Field(validation_alias=AliasChoices("engine", "choice"))
    """What executes the network, and why. Early versions called it `choice`."""
    relabeled_from: tuple[str, ...] = ()
    """The runs whose scores these labels were cut from; empty where a model was run."""
    created_at: datetime


class Success(BaseModel):
    """`_SUCCESS`: what a committed run consists of."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    rows: int
    statuses: dict[str, int]
    fragments: list[Fragment]
    seconds: float
    """Wall time of the last attempt, from the start of the workers."""
    stage_seconds: dict[str, float] = {}
    """What all workers spent on fetching (waiting), decoding and scoring in the command that committed."""
    committed_at: datetime


def read_record(store: Store, run_id: str) -> RunRecord | None:
    """A run's `run.json`, where its manifest is complete."""
    loaded = store.read_json(layout.run_json(run_id))
    try:
        return None if loaded is None else RunRecord.model_validate(loaded)
    except ValidationError as error:
        raise UsageError(
            f"{store.uri(layout.run_json(run_id))} is not a run's record: {error.errors()[0]['msg']}"
        ) from None


def read_success(store: Store, run_id: str) -> Success | None:
    loaded: Any = store.read_json(layout.success(run_id))
    return None if loaded is None else Success.model_validate(loaded)


def newest_record(records: Iterable[RunRecord | None]) -> RunRecord | None:
    """The one that was begun last; None where there is none."""
    return max((one for one in records if one), key=lambda record: record.created_at, default=None)


LOOKED_INTO = 50
"""Folders of an output without runs that are looked into for some."""


def no_runs(store: Store, what: str = "committed run") -> UsageError:
    """That an output holds none; and which folders in it do, as a job of several models leaves them."""
    inner = [store.uri(name) for name in store.names("")[:LOOKED_INTO] if store.names(f"{name}/{layout.RUNS}")]
    hint = f": did you mean {' or '.join(repr(one) for one in inner)}?" if inner else ""
    return UsageError(f"'{store.root}' holds no {what}{hint}")


def run_ids(store: Store) -> list[str]:
    """The runs of an output, sorted: what has a `run.json`. A folder without one is of a listing that never ended."""
    return [name for name in store.names(layout.RUNS) if store.read(layout.run_json(name)) is not None]

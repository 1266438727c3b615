"""`progress.json`: how far a run is, written every few seconds by the driver that works on it, for any script to read."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout


class Progress(BaseModel):
    """The content of `progress.json`."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    state: Literal["running", "ended"]
    """`ended` when nobody works on the run any more, committed (`_SUCCESS`) or not."""
    rows: int
    done: int
    """Earlier attempts included, and copies that need no score of their own (`dedupe`)."""
    statuses: dict[str, int]
    """Rows that this attempt labeled, counted by status."""
    images_per_s: float
    seconds_left: float | None
    updated_at: datetime


def read_progress(store: Store, run_id: str) -> Progress | None:
    """Read how far a run is; None where no driver has written it yet, or it cannot be understood."""
    data = store.read(layout.progress(run_id))
    try:
        return Progress.model_validate_json(data) if data else None
    except ValidationError:
        return None


def write_progress(store: Store, progress: Progress) -> None:
    """Write how far a run is, in place of what was there."""
    store.write_json(layout.progress(progress.run_id), progress.model_dump(mode="json"))

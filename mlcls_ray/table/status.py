"""`mlcls status`: the progress of each run of an output, read from its files. Works for a running one too, without its Ray."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.attempts import accepted_fragments
from mlcls_ray.table.leases import is_being_worked_on
from mlcls_ray.table.ledger import count_statuses, fragment_names
from mlcls_ray.table.progress import read_progress
from mlcls_ray.table.records import RunRecord, read_record, read_records, read_success

State = Literal["committed", "running", "unfinished"]


class RunStatus(BaseModel):
    """The state of one run.

    `done` counts the rows that are labeled: of a running run as its driver counts them, else those in fragments. `rate` is rows per second:
    of a committed run that of the command that committed it, else of the newest attempt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    state: State
    rows: int
    done: int
    statuses: dict[str, int]
    rate: float | None = None
    seconds_left: float | None = None
    created_at: datetime


class _Written(NamedTuple):
    """The rows by status, and the rate, of a run that is not committed."""

    statuses: Counter[str]
    rate: float | None


def newest_status(store: Store, most: int) -> list[RunStatus]:
    """Read the states of the runs that were started last, oldest first. Runs are in the order of their starts, whatever their names."""
    records = sorted(read_records(store, store.names(layout.RUNS)).values(), key=lambda record: record.place)
    return [_status_of(store, record) for record in records[-most:]] if most > 0 else []


def run_status(store: Store, run_id: str) -> RunStatus | None:
    """Read the state of a run; None if its manifest is not complete."""
    record = read_record(store, run_id)
    return _status_of(store, record) if record else None


def _status_of(store: Store, record: RunRecord) -> RunStatus:
    run_id = record.run_id
    success = read_success(store, run_id)
    if success is not None:
        return _status(record, "committed", Counter(success.statuses), success.per_s)
    is_running = is_being_worked_on(store, run_id)
    progress = read_progress(store, run_id) if is_running else None
    if progress is not None and progress.state == "running":  # as its bar shows it; its fragments are a minute behind
        statuses = Counter(progress.statuses) + Counter(count_statuses(accepted_fragments(store, run_id)))
        return _status(record, "running", statuses, progress.images_per_s or None, progress.done)
    written = _read_written(store, run_id)
    return _status(record, "running" if is_running else "unfinished", written.statuses, written.rate)


def _status(
    record: RunRecord, state: State, statuses: Counter[str], rate: float | None, counted: int | None = None
) -> RunStatus:
    done = statuses.total() if counted is None else counted
    return RunStatus(
        run_id=record.run_id,
        state=state,
        rows=record.rows,
        done=done,
        statuses=dict(statuses.most_common()),
        rate=rate,
        seconds_left=(record.rows - done) / rate if rate and state == "running" else None,
        created_at=record.created_at,
    )


def _read_written(store: Store, run_id: str) -> _Written:
    statuses: Counter[str] = Counter()
    latest_attempt, rows, times = 0, 0, list[datetime]()
    for name in fragment_names(store, run_id):
        try:
            with store.open(f"{layout.labels_folder(run_id)}/{name}") as stream:
                file = pq.ParquetFile(stream, pre_buffer=False)
                statuses.update(file.read(columns=[schema.STATUS], use_threads=False).column(0).to_pylist())
        except (FileNotFoundError, pa.ArrowInvalid):
            continue  # removed meanwhile, or half written
        if layout.attempt_of(name) > latest_attempt:
            latest_attempt, rows, times = layout.attempt_of(name), 0, []
        rows += file.metadata.num_rows
        times += _labeled_between(file.metadata)
    seconds = (max(times) - min(times)).total_seconds() if times else 0.0
    return _Written(statuses, rows / seconds if seconds else None)


def _labeled_between(metadata: pq.FileMetaData) -> list[datetime]:
    """Read the first and last `labeled_at` of each row group from the footer's statistics."""
    paths = [metadata.schema.column(number).path for number in range(len(metadata.schema))]
    position = paths.index(schema.LABELED_AT)
    groups = [metadata.row_group(number).column(position).statistics for number in range(metadata.num_row_groups)]
    return [time for group in groups if group is not None and group.has_min_max for time in (group.min, group.max)]

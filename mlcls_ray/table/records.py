"""The two files that describe a run: `run.json`, written at its start, and `_SUCCESS`, written at its end."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from mlcls_ray.engines.autotune import EngineConfig
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.label_map import ResolvedLabelMap
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, count_statuses
from mlcls_ray.table.manifest import ManifestPart, read_manifest_parts

CLOCK_TOLERANCE = timedelta(minutes=5)
"""Difference between the clocks of machines that is nobody's mistake."""
Content = TypeVar("Content", bound=BaseModel)
SEARCHED_FOLDERS = 50
"""Folders of an output without runs in which `no_runs` looks for some."""


class InputChanges(BaseModel):
    """The finds of an incremental job in its inputs, compared with the newest rows of earlier runs."""

    model_config = ConfigDict(frozen=True)

    listed: int
    """Images that the inputs name."""
    new: int = 0
    """Never labeled, or found again after they had vanished."""
    changed: int = 0
    retried: int = 0
    """Unchanged, and failed for a transient reason."""
    other_model: int = 0
    """Unchanged, and labeled by another model or with another preprocessing."""
    vanished: int = 0
    """Labeled by an earlier run over the same inputs, and not found now."""


class RunRecord(BaseModel):
    """The content of `run.json`. The file is written when the run's manifest is complete; without it there is no run."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    number: int = 0
    """The run's place in its output, from 1 in the order of the starts; 0 if it began before runs were numbered."""
    rows: int
    model: str
    model_fingerprint: str
    preprocess_fingerprint: str
    threshold_id: str
    thresholds: dict[str, float]
    label_map: dict[str, str | None] = {}
    """The labels of the classes that give another label than their own name; None: they give none. Empty up to version 0.1."""
    config: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, Any]
    """Provenance only: for a person who asks later what the run ran on. No code reads it."""
    engine: EngineConfig = Field(validation_alias=AliasChoices("engine", "choice"))
    """The engine that executes the network, and why it was chosen. Up to version 0.1 the key was `choice`."""
    relabeled_from: tuple[str, ...] = ()
    """The runs whose scores these labels were selected from; empty if a model was run."""
    left_out: dict[str, int] = {}
    """Files of the inputs' folders and archives that are no images by their names, by suffix. Up to version 0.1 they were not counted."""
    changes: InputChanges | None = None
    """The finds of an incremental job; None for other jobs, and up to version 0.1."""
    created_at: datetime

    @property
    def resolved_map(self) -> ResolvedLabelMap:
        """The label of each class."""
        names = tuple(self.label_map.get(name, name) for name in self.thresholds)
        return ResolvedLabelMap(tuple(self.thresholds), names)

    @property
    def label_thresholds(self) -> dict[str, float]:
        """The threshold of each label that images can have; of merged classes the lowest one."""
        lowest: dict[str, float] = {}
        for name, threshold in zip(self.resolved_map.names, self.thresholds.values(), strict=True):
            if name is not None:
                lowest[name] = min(threshold, lowest.get(name, threshold))
        return lowest

    @property
    def place(self) -> tuple[int, datetime]:
        """A key that sorts runs by their start. Clocks decide only where numbers do not."""
        return self.number, self.created_at


class Success(BaseModel):
    """The content of `_SUCCESS`: what belongs to a committed run, with checksums."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    rows: int
    statuses: dict[str, int]
    fragments: list[Fragment]
    manifest: list[ManifestPart] = []
    """The manifest's files; up to version 0.1 they were not listed."""
    record_sha256: str | None = None
    """Checksum of `run.json`; None up to version 0.1."""
    seconds: float
    """Wall time of the command that committed the run, from the start of its workers."""
    labeled: int | None = None
    """Rows that this command labeled; the others were there from commands that were interrupted. None up to version 0.1."""
    stage_seconds: dict[str, float] = {}
    """Seconds that all workers of that command spent, by activity: fetch (waiting), decode (CPU), decode_on_card, score."""
    committed_at: datetime

    @property
    def labeled_rows(self) -> int:
        """The rows that were labeled within `seconds`."""
        return self.rows if self.labeled is None else self.labeled

    @property
    def per_s(self) -> float | None:
        """Images per second of the command that committed the run, the start of its workers included; None if it labeled none."""
        return self.labeled_rows / self.seconds if self.labeled_rows and self.seconds else None


class Latest(BaseModel):
    """The content of `latest.json`: the run that was committed last, and the folder of its label table."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    labels: str
    committed_at: datetime


def next_number(store: Store) -> int:
    """Return the place of a run that starts now: after all others of the output."""
    records = read_records(store, store.names(layout.RUNS))
    return 1 + max((record.number for record in records.values()), default=0)


def check_clock(store: Store, now: datetime | None = None) -> None:
    """Make sure that the newest committed run does not lie in the future: ages, and rows of runs without numbers, go by the clock.

    Raises:
        UsageError: it does: this machine's clock is behind, or was ahead then.
    """
    try:
        latest = read_latest(store)
    except UsageError:  # the next commit replaces it
        return
    if latest is None:
        return
    moment = now or datetime.now(timezone.utc)
    if latest.committed_at > moment + CLOCK_TOLERANCE:
        raise UsageError(
            f"run '{latest.run_id}' in '{redact_url(store.root)}' was committed at {latest.committed_at:%Y-%m-%d %H:%M} UTC, and now it is "
            f"{moment:%Y-%m-%d %H:%M}: correct this machine's clock; if it was ahead then and is right now, "
            f"`mlcls compact OUT --run-id {latest.run_id}` gives the run the present time"
        )


def new_run_id() -> str:
    """Return the time in UTC, with four random characters so that two runs of one second differ. Sorts by time."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ-") + secrets.token_hex(2)


def read_record(store: Store, run_id: str) -> RunRecord | None:
    """Read a run's `run.json`; None if its manifest is not complete.

    Raises:
        UsageError: the file is not a run's record.
    """
    return _read(store, layout.run_json(run_id), RunRecord)


def read_records(store: Store, run_ids: Iterable[str]) -> dict[str, RunRecord]:
    """Read the `run.json` of runs, by run; without those that have none."""
    records = {run_id: read_record(store, run_id) for run_id in run_ids}
    return {run_id: record for run_id, record in records.items() if record is not None}


def read_success(store: Store, run_id: str) -> Success | None:
    """Read a run's `_SUCCESS`; None if it is not committed.

    Raises:
        UsageError: the file does not say what the run consists of.
    """
    success = _read(store, layout.success(run_id), Success)
    if success is not None and success.run_id != run_id:
        raise UsageError(
            f"{redact_url(store.uri(layout.success(run_id)))} is that of run '{success.run_id}': move the folder out of {layout.RUNS}/"
        )
    return success


def read_successes(store: Store) -> dict[str, Success]:
    """Read `_SUCCESS` of all committed runs of an output, by run."""
    successes = {run_id: read_success(store, run_id) for run_id in store.names(layout.RUNS)}
    return {run_id: success for run_id, success in successes.items() if success is not None}


def read_latest(store: Store) -> Latest | None:
    """Read `latest.json`; None where nothing was committed yet.

    Raises:
        UsageError: the file does not name a run.
    """
    return _read(store, layout.LATEST, Latest)


def _read(store: Store, name: str, kind: type[Content]) -> Content | None:
    """Read a JSON file of this package; None if it does not exist.

    Raises:
        UsageError: the file is cut, or not what it should be.
    """
    data = store.read(name)
    if data is None:
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{redact_url(store.uri(name))} is damaged: {f'{place}: ' if place else ''}{first['msg']}"
        ) from None


def make_visible(
    store: Store,
    run_id: str,
    fragments: Sequence[Fragment],
    seconds: float,
    stage_seconds: Mapping[str, float] | None = None,
    labeled: int | None = None,
) -> Success:
    """Write `_SUCCESS`, and let `latest.json` point to the run. `labeled`: rows of this command. None: all."""
    rows = sum(fragment.rows for fragment in fragments)
    success = Success(
        run_id=run_id,
        rows=rows,
        statuses=count_statuses(fragments),
        fragments=list(fragments),
        manifest=read_manifest_parts(store, run_id),
        record_sha256=hashlib.sha256(store.read(layout.run_json(run_id)) or b"").hexdigest(),
        seconds=round(seconds, 3),
        labeled=rows if labeled is None else labeled,
        stage_seconds={stage: round(spent, 3) for stage, spent in (stage_seconds or {}).items()},
        committed_at=datetime.now(timezone.utc),
    )
    write_success(store, success)
    write_latest(store, success)
    return success


def write_success(store: Store, success: Success) -> None:
    """Commit a run, or replace the list of its files."""
    store.write_json(layout.success(success.run_id), success.model_dump(mode="json"))


def write_latest(store: Store, success: Success) -> None:
    """Let `latest.json` point to a committed run."""
    latest = Latest(
        run_id=success.run_id, labels=layout.labels_folder(success.run_id), committed_at=success.committed_at
    )
    store.write_json(layout.LATEST, latest.model_dump(mode="json"))


def in_order(successes: Mapping[str, Success], records: Mapping[str, RunRecord]) -> list[Success]:
    """Sort committed runs by their starts, oldest first; a run without `run.json` comes first."""

    def place(success: Success) -> tuple[int, datetime]:
        record = records.get(success.run_id)
        return record.place if record else (-1, success.committed_at)

    return sorted(successes.values(), key=place)


def point_to_newest(store: Store, without: Collection[str] = ()) -> None:
    """Let `latest.json` point to the newest committed run but those in `without`; remove it if there is none."""
    successes = {run_id: success for run_id, success in read_successes(store).items() if run_id not in without}
    if successes:
        write_latest(store, in_order(successes, read_records(store, successes))[-1])
    else:
        store.remove(layout.LATEST)


def newest_record(records: Iterable[RunRecord | None]) -> RunRecord | None:
    """Return the record of the run that was started last; None if there is none."""
    return max((record for record in records if record), key=lambda record: record.place, default=None)


def run_ids(store: Store) -> list[str]:
    """List the runs of an output, sorted: the folders with a `run.json`. A folder without one belongs to a listing that did not end."""
    return [name for name in store.names(layout.RUNS) if store.read(layout.run_json(name)) is not None]


def no_runs(store: Store, what: str = "committed run") -> UsageError:
    """Make the error for an output without runs. It names the folders in it that have some: a job of several models writes such."""
    names = store.names("")[:SEARCHED_FOLDERS]
    outputs = [repr(store.uri(name)) for name in names if store.names(f"{name}/{layout.RUNS}")]
    hint = f": did you mean {' or '.join(outputs)}?" if outputs else ""
    return UsageError(f"'{store.root}' holds no {what}{hint}")

"""The runs that a drift is measured between: one run, and those before it whose scores mean the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table.records import RunRecord, Success, in_order, no_runs, read_records, read_successes


class LeftOut(BaseModel):
    """A run that could not be compared, and why."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    reason: str


class Run(NamedTuple):
    """A committed run and its record."""

    record: RunRecord
    success: Success


class Compared(NamedTuple):
    """The run `now`, the runs `before` it, oldest first (there may be none), and those that were passed over."""

    now: Run
    before: list[Run]
    left_out: list[LeftOut]


def choose_runs(store: Store, run_id: str | None = None, against: str = "7") -> Compared:
    """Choose what to compare. Runs without rows, such as a night on which images only vanished, do not count.

    Args:
        store: The output.
        run_id: The run that is looked at. Default: the newest one that has rows of its own, which a relabeling has not.
        against: The name of a run; or a number of runs, the last comparable ones before it; or a date, for those since that day (UTC).

    Raises:
        UsageError: there is no such run, `against` is none of the three, or the scores of the two runs that were named cannot be compared.
    """
    successes = read_successes(store)
    records = read_records(store, successes)
    if not successes:
        raise no_runs(store)
    now = _find_now(store, successes, records, run_id)
    if against in successes:
        return Compared(now, [_named(now, successes, records, against)], [])
    ordered = in_order(successes, records)
    earlier = [success for success in ordered[: ordered.index(now.success)] if success.rows]
    most, since = _parse_against(against, successes)
    before, left_out = list[Run](), list[LeftOut]()
    for success in reversed(earlier):
        record = records.get(success.run_id)
        if len(before) == most or (record and record.created_at < since):
            break
        reason = _difference(record, now.record)
        if record and reason is None:
            before.append(Run(record, success))
        else:
            left_out.append(LeftOut(run_id=success.run_id, reason=reason or ""))
    return Compared(now, before[::-1], left_out[::-1])


def _find_now(
    store: Store, successes: Mapping[str, Success], records: Mapping[str, RunRecord], run_id: str | None
) -> Run:
    if run_id is None:
        runs = list(_own_runs(in_order(successes, records), records))
        if not runs:
            raise UsageError(f"'{redact_url(store.root)}' holds no run that labeled an image")
        return runs[-1]
    if run_id not in successes:
        raise UsageError(
            f"'{redact_url(store.root)}' holds no committed run '{run_id}'{suggest(run_id, sorted(successes))}"
        )
    found = list(_own_runs([successes[run_id]], records))
    if not found:
        raise UsageError(f"run '{run_id}' {_unfit(records.get(run_id)) or 'has no rows'}: name another by --run-id")
    return found[0]


def _own_runs(successes: Sequence[Success], records: Mapping[str, RunRecord]) -> Iterator[Run]:
    """Find the runs that have rows which a model scored."""
    for success in successes:
        record = records.get(success.run_id)
        if record and success.rows and _unfit(record) is None:
            yield Run(record, success)


def _named(now: Run, successes: Mapping[str, Success], records: Mapping[str, RunRecord], run_id: str) -> Run:
    """Find the run that `--against` names. It was asked for by its name, so that one that cannot be compared is a mistake."""
    record = records.get(run_id)
    reason = "is the run itself" if run_id == now.success.run_id else _difference(record, now.record)
    if record is None or reason:
        raise UsageError(f"--against: run '{run_id}' {reason}: it cannot be compared with '{now.success.run_id}'")
    return Run(record, successes[run_id])


def _parse_against(text: str, successes: Mapping[str, Success]) -> tuple[int | None, datetime]:
    """Parse a number of runs or a date: the number (None: any), and the time before which no run counts."""
    always = datetime.min.replace(tzinfo=timezone.utc)
    if text.isdecimal() and 0 < int(text) < 10**6:
        return int(text), always
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--against: '{text}' is neither a number of runs, nor a date such as 2026-11-27, nor a run{suggest(text, sorted(successes))}"
        ) from None
    return None, since if since.tzinfo else since.replace(tzinfo=timezone.utc)


def _unfit(record: RunRecord | None) -> str | None:
    """Say why a run says nothing about what came in; None if it does."""
    if record is None:
        return "has no run.json"
    return "was relabeled: its images are those of other runs" if record.relabeled_from else None


def _difference(record: RunRecord | None, now: RunRecord) -> str | None:
    """Say why a run's scores cannot be compared with those of `now`; None if they can."""
    if record is None or record.relabeled_from:
        return _unfit(record)
    if record.model_fingerprint != now.model_fingerprint:
        return f"is of another model ({record.model})"
    if record.preprocess_fingerprint != now.preprocess_fingerprint:
        return "prepared its images in another way"
    if kept_scores(record) != kept_scores(now):
        return f"kept other scores ({kept_scores(record)})"
    return None


def kept_scores(record: RunRecord) -> str:
    """Say which scores of a run are in its table, as the options of its job do."""
    kept = str(record.config.get("all_scores", "all"))
    return f"all_scores: {kept}, top_k: {record.config.get('top_k')}" if kept == "top_k" else f"all_scores: {kept}"

"""`mlcls nightly`: label what is new, from a cron line. The job runs in its own process, so that its end is logged and reported however
it ends.

Each night is one incremental run (the output's lease refuses a second one at the same time). Its output goes to a log that rotates, and
one JSON line of summary to a file. The labels of the night are compared with those of the nights before. On request old runs are removed,
and a failure is posted to a webhook.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import IO

import httpx
import tenacity
from pydantic import BaseModel, ConfigDict, ValidationError

from mlcls_ray.config_file import load_job
from mlcls_ray.errors import DRIFT_EXIT_CODE, MlclsError, RunInterruptedError, UsageError, short_message
from mlcls_ray.logs import hide_library_urls
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.drift.options import DriftOptions
from mlcls_ray.table.drift.report import Verdict, find_drift
from mlcls_ray.table.prune import find_superseded, parse_age, remove_runs
from mlcls_ray.table.records import InputChanges, RunRecord, Success, read_record, read_success
from mlcls_ray.terminal import plain

LOG, SUMMARIES = "mlcls.log", "summary.jsonl"
LOG_BYTES, LOGS_KEPT = 10_000_000, 5
LAST_LINES = 5
"""The summary of a failed run holds so many of its last lines."""
WEBHOOK_TIMEOUT_S = 10.0
WEBHOOK_RETRIES = tenacity.Retrying(
    stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential(multiplier=0.5, max=5), reraise=True
)


class NightDrift(BaseModel):
    """The drift of one night, by the defaults of `mlcls drift`. `highest` is the label with the highest PSI; None without a verdict."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    moved: int
    """Labels that moved."""
    highest_psi: float | None
    highest: str | None
    sentence: str


class Summary(BaseModel):
    """One night. `run_id` is None if nothing was new; `message` holds the last lines of a run that failed."""

    model_config = ConfigDict(frozen=True)

    started_at: datetime
    seconds: float
    exit_code: int
    out: str
    run_id: str | None = None
    rows: int = 0
    statuses: dict[str, int] = {}
    listed: int | None = None
    """Images that the inputs name. None, as the counts below: the night ended before it knew."""
    new: int | None = None
    changed: int | None = None
    retried: int | None = None
    """Labeled again, unchanged, because they had failed for a transient reason."""
    other_model: int | None = None
    """Labeled again, unchanged, because the model or its preprocessing is another one."""
    vanished: int | None = None
    left_out: dict[str, int] = {}
    """Files of the inputs that are no images by their names, by suffix."""
    pruned: tuple[str, ...] = ()
    drift: NightDrift | None = None
    """None if no image was labeled, or the drift could not be measured: the log says why."""
    message: str = ""


def run_nightly(
    config: Path,
    logs: Path,
    keep: str | None,
    webhook: str | None,
    verbose: bool = False,
    fail_on_drift: bool = False,
) -> Summary:
    """Run the night's job. A failure of it does not raise: the summary has its message, and its exit code.

    Args:
        config: YAML file of a `LabelJob`.
        logs: folder for the log and the summaries.
        keep: afterwards remove superseded runs that are older than this, as in `30d`.
        webhook: URL that a summary of a failed night is posted to.
        fail_on_drift: a night whose labels or errors have moved counts as failed.

    Raises:
        UsageError: the config or a flag is wrong, or the logs cannot be written.
    """
    job = load_job(config, {"incremental": True})
    age = parse_age(keep) if keep else None
    if webhook and not webhook.startswith(("http://", "https://")):
        raise UsageError(f"--webhook: '{webhook}' is not an http(s):// URL")
    started_at, start = datetime.now(timezone.utc), time.monotonic()
    log = open_log(logs)
    store = Store(job.out, job.s3)
    before = _latest_run(store)
    exit_code, last_lines, result = _run(config, log, verbose)
    success = _new_run(store, before)
    drift = _drift(store, success, log)
    if fail_on_drift and drift and drift.verdict == "drift" and exit_code == 0:
        exit_code, last_lines = DRIFT_EXIT_CODE, [f"drift: {drift.sentence}"]
    pruned: tuple[str, ...] = ()
    if exit_code in (0, DRIFT_EXIT_CODE) and age is not None:
        try:
            pruned = tuple(find_superseded(store, age))
            remove_runs(store, pruned)
        except MlclsError as error:
            exit_code, last_lines = error.exit_code, [f"prune: {error}"]
    found = _found(store, success, result)
    summary = Summary(
        started_at=started_at,
        seconds=round(time.monotonic() - start, 1),
        exit_code=exit_code,
        out=job.out,
        run_id=success.run_id if success else None,
        rows=success.rows if success else 0,
        statuses=success.statuses if success else {},
        **(found.changes.model_dump() if found and found.changes else {}),
        left_out=found.left_out if found else {},
        pruned=pruned,
        drift=drift,
        message="\n".join(last_lines) if exit_code else "",
    )
    with (logs / SUMMARIES).open("a", encoding="utf-8") as stream:
        stream.write(summary.model_dump_json() + "\n")
    if webhook and exit_code:
        post(webhook, summary, log)
    return summary


def open_log(folder: Path) -> logging.Logger:
    """Open the log: at most six files of ten megabytes each.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            folder / LOG, maxBytes=LOG_BYTES, backupCount=LOGS_KEPT, encoding="utf-8"
        )
    except OSError as error:
        raise UsageError(f"logs '{folder}' cannot be written: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.Logger("mlcls.nightly", logging.INFO)
    log.addHandler(handler)
    return log


def post(webhook: str, summary: Summary, log: logging.Logger) -> None:
    """Post the summary as JSON, with a field `text` that chat programs show. A webhook that cannot be reached is only logged."""
    last_line = summary.message.splitlines()[-1] if summary.message else ""
    text = f"mlcls: exit code {summary.exit_code} for {summary.out}: {last_line}"
    hide_library_urls()
    body = {"text": text, **json.loads(summary.model_dump_json())}
    try:
        WEBHOOK_RETRIES.copy()(lambda: httpx.post(webhook, json=body, timeout=WEBHOOK_TIMEOUT_S).raise_for_status())
    except httpx.HTTPError as error:
        log.info("the webhook could not be reached: %s", type(error).__name__)


class _JobResult(BaseModel):
    """The job's words about its inputs: a part of the JSON object that `mlcls label --json` prints."""

    left_out: dict[str, int]
    changes: InputChanges | None


def _found(store: Store, success: Success | None, result: _JobResult | None) -> RunRecord | _JobResult | None:
    """Find what a job found in its inputs: in the record of its run, even if it failed later; from itself, if there was nothing to do."""
    return (read_record(store, success.run_id) if success else None) or result


def _run(config: Path, log: logging.Logger, verbose: bool) -> tuple[int, Sequence[str], _JobResult | None]:
    """Run the job and log what it says on standard error; return its exit code, its last lines, and its result if it came to its end.

    SIGTERM and Ctrl-C become an interrupt of the job, which then writes its finished rows before it ends.
    """
    command = [sys.executable, "-m", "mlcls_ray.cli", "label", "--config", str(config), "--incremental", "--json"]
    output = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed below)
    process = subprocess.Popen(  # noqa: S603
        [*command, *(["--verbose"] if verbose else [])],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "COLUMNS": "120"},
    )

    def interrupt_job(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGINT)

    handlers = {number: signal.signal(number, interrupt_job) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        last_lines: deque[str] = deque(maxlen=LAST_LINES)
        assert process.stderr is not None
        for line in process.stderr:
            log.info("%s", plain(line.rstrip()))
            if line.strip():
                last_lines.append(line.strip())
        exit_code = process.wait()
        result = _read_result(output)
    finally:
        output.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if exit_code < 0:  # ended by a signal, which a shell reports as 128 + its number
        last_lines.append(f"ended by signal {-exit_code}")
        exit_code = RunInterruptedError.exit_code if -exit_code == signal.SIGINT else 128 - exit_code
    return exit_code, last_lines, result


def _read_result(output: IO[str]) -> _JobResult | None:
    """Read the last line of the job's standard output; None if it is no result, because the job did not come to its end."""
    output.seek(0)
    last = deque(output, maxlen=1)
    try:
        return _JobResult.model_validate_json(last[0]) if last else None
    except ValidationError:
        return None


def _drift(store: Store, success: Success | None, log: logging.Logger) -> NightDrift | None:
    """Compare the night's run with those before it. What goes wrong here fails no night whose images are labeled."""
    if success is None or not success.rows:
        return None
    try:
        report = find_drift(store, DriftOptions(run_id=success.run_id))
    except Exception as error:
        log.info("the drift could not be measured: %s", short_message(error))
        return None
    highest = max(report.labels, key=lambda label: label.psi, default=None) if report.verdict != "unknown" else None
    log.info("%s: %s", report.verdict, plain(report.sentence))
    return NightDrift(
        verdict=report.verdict,
        moved=len(report.moved),
        highest_psi=round(highest.psi, 4) if highest else None,
        highest=highest.name if highest else None,
        sentence=report.sentence,
    )


def _latest_run(store: Store) -> str | None:
    latest = store.read_json(layout.LATEST)
    return str(latest["run_id"]) if latest else None


def _new_run(store: Store, before: str | None) -> Success | None:
    """Read the `_SUCCESS` of the newest committed run, unless it is the run of before."""
    run_id = _latest_run(store)
    return read_success(store, run_id) if run_id and run_id != before else None

"""`mlcls nightly`: what a cron line runs. The job is a process of its own, so that whatever ends it is logged, told and counted.

Per night: an incremental run (two at once are refused by the output's lease), its output in a log that rotates, one JSON line of
summary, and where asked for old runs removed and a failure told to a webhook.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType

import httpx
import tenacity
from pydantic import BaseModel, ConfigDict

from mlcls_ray.config import LabelJob, load_job
from mlcls_ray.errors import MlclsError, RunInterruptedError, UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.prune import find_superseded, parse_age, remove_runs
from mlcls_ray.table.records import read_success

LOG, SUMMARIES = "mlcls.log", "summary.jsonl"
LOG_BYTES, LOGS_KEPT = 10_000_000, 5
TAIL = 5
"""Last lines of a run that failed, in its summary."""
WEBHOOK_TIMEOUT_S = 10.0


class Summary(BaseModel):
    """One night. `run_id` is None where nothing was new; `message` holds the last lines of a run that failed."""

    model_config = ConfigDict(frozen=True)

    started_at: datetime
    seconds: float
    exit_code: int
    out: str
    run_id: str | None = None
    rows: int = 0
    statuses: dict[str, int] = {}
    pruned: tuple[str, ...] = ()
    message: str = ""


def run_nightly(config: Path, logs: Path, keep: str | None, webhook: str | None, verbose: bool = False) -> Summary:
    """Run the night's job; what went wrong is in the summary, and its exit code is the job's.

    Raises:
        UsageError: the config or a flag is wrong, or the logs cannot be written.
    """
    job = load_job(config, {"incremental": True})
    age = parse_age(keep) if keep else None
    if webhook and not webhook.startswith(("http://", "https://")):
        raise UsageError(f"--webhook: '{webhook}' is not an http(s):// URL")
    started, began = datetime.now(timezone.utc), time.monotonic()
    log = open_log(logs)
    store = Store(job.out, job.s3)
    before = _newest(store)
    code, tail = _run(config, log, verbose)
    pruned: tuple[str, ...] = ()
    if code == 0 and age is not None:
        try:
            pruned = tuple(find_superseded(store, age))
            remove_runs(store, pruned)
        except MlclsError as error:
            code, tail = error.exit_code, [f"prune: {error}"]
    summary = _summary(job, store, before, code, tail)
    summary = summary.model_copy(
        update={"started_at": started, "seconds": round(time.monotonic() - began, 1), "pruned": pruned}
    )
    with (logs / SUMMARIES).open("a", encoding="utf-8") as stream:
        stream.write(summary.model_dump_json() + "\n")
    if webhook and code != 0:
        tell(webhook, summary, log)
    return summary


def open_log(folder: Path) -> logging.Logger:
    """A log of at most six files of ten megabytes."""
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


def _run(config: Path, log: logging.Logger, verbose: bool) -> tuple[int, Sequence[str]]:
    """The job's exit code and last lines. SIGTERM and Ctrl-C are handed on: it then writes what it has in hand."""
    command = [sys.executable, "-m", "mlcls_ray.cli", "label", "--config", str(config), "--incremental"]
    process = subprocess.Popen(  # noqa: S603
        [*command, *(["--verbose"] if verbose else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "COLUMNS": "120"},
    )

    def hand_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        tail: deque[str] = deque(maxlen=TAIL)
        assert process.stdout is not None
        for line in process.stdout:
            log.info(line.rstrip())
            if line.strip():
                tail.append(line.strip())
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code < 0:  # a signal ended it: 128 + its number, as a shell says it
        tail.append(f"ended by signal {-code}")
        code = RunInterruptedError.exit_code if -code == signal.SIGINT else 128 - code
    return code, tail


def _newest(store: Store) -> str | None:
    told = store.read_json(layout.LATEST)
    return told["run_id"] if told else None


def _summary(job: LabelJob, store: Store, before: str | None, code: int, tail: Sequence[str]) -> Summary:
    newest = _newest(store)
    success = read_success(store, newest) if newest and newest != before else None
    return Summary(
        started_at=datetime.now(timezone.utc),
        seconds=0.0,
        exit_code=code,
        out=job.out,
        run_id=success.run_id if success else None,
        rows=success.rows if success else 0,
        statuses=success.statuses if success else {},
        message="" if code == 0 else "\n".join(tail),
    )


def tell(webhook: str, summary: Summary, log: logging.Logger) -> None:
    """Post the summary as JSON, with a `text` that chat programs show. One that cannot be reached is logged and changes nothing."""
    text = f"mlcls: exit code {summary.exit_code} for {summary.out}: {summary.message.splitlines()[-1] if summary.message else ''}"
    body = {"text": text, **json.loads(summary.model_dump_json())}
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential(multiplier=0.5, max=5), reraise=True
    )
    try:
        retrying(lambda: httpx.post(webhook, json=body, timeout=WEBHOOK_TIMEOUT_S).raise_for_status())
    except httpx.HTTPError as error:
        log.info("the webhook could not be told: %s", type(error).__name__)

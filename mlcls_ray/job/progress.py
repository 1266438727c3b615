"""Progress of a running job: what its monitor counts, shown as a bar or as plain lines; and Ctrl-C, which stops it in good order."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, Literal

import ray
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mlcls_ray.job.monitor import count_failures
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.terminal import on_first_sigint

BAR_INTERVAL_S = 0.5
LINE_INTERVAL_S = 5.0
FILE_INTERVAL_S = 5.0


def stop_on_interrupt(monitor: Any) -> contextlib.AbstractContextManager[None]:
    """While the body runs, the first Ctrl-C asks the workers to stop after what they have in hand; the second one interrupts."""
    return on_first_sigint(lambda: monitor.stop.remote("interrupt"), "what is in hand is written")


@contextlib.contextmanager
def show_progress(monitor: Any, store: Store, run_id: str, rows: int, already_done: int) -> Iterator[None]:
    """Show progress while the body runs: on stderr as a live bar on a terminal, else a line every few seconds; and in the run's
    `progress.json`, for any script.
    """
    stop = threading.Event()
    show = _show_bar if sys.stderr.isatty() else _show_lines
    threads = [
        threading.Thread(target=show, args=(monitor, rows, already_done, stop), daemon=True, name="progress"),
        threading.Thread(
            target=_write_file,
            args=(monitor, store, run_id, rows, already_done, stop),
            daemon=True,
            name="progress file",
        ),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=5)


class Progress(BaseModel):
    """`progress.json`. `done` counts earlier attempts too, `statuses` what this command has labeled; `state` is `ended` when nobody works
    on the run any more, committed (`_SUCCESS`) or not.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    state: Literal["running", "ended"]
    rows: int
    done: int
    statuses: dict[str, int]
    images_per_s: float
    seconds_left: float | None
    updated_at: datetime


def _write_file(monitor: Any, store: Store, run_id: str, rows: int, already_done: int, stop: threading.Event) -> None:
    seen = _Rate()
    while True:
        stopping = stop.wait(FILE_INTERVAL_S)
        counts = _counts(monitor)
        done, rate = already_done + counts.total(), seen.of(counts.total())
        progress = Progress(
            run_id=run_id,
            state="ended" if stopping else "running",
            rows=rows,
            done=done,
            statuses=dict(counts),
            images_per_s=round(rate, 1),
            seconds_left=round((rows - done) / rate, 1) if rate else None,
            updated_at=datetime.now(timezone.utc),
        )
        with contextlib.suppress(Exception):  # what is shown must never end what is done
            store.write_json(layout.progress(run_id), progress.model_dump(mode="json"))
        if stopping:
            return


def _counts(monitor: Any) -> Counter[str]:
    """Ask the monitor for its counts; none while it cannot be asked (its node died, Ray shuts down)."""
    try:
        return Counter(ray.get(monitor.counts.remote(), timeout=5))
    except Exception:
        return Counter()


class _Rate:
    """Images per second since the first ones were seen; begins anew when the monitor does."""

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None

    def of(self, done: int) -> float:
        now = time.monotonic()
        if done and (self.first is None or done < self.first[1]):
            self.first = (now, done)
        if self.first is None or now - self.first[0] < 0.1:
            return 0.0
        return max(done - self.first[1], 0) / (now - self.first[0])


def _show_bar(monitor: Any, rows: int, already_done: int, stop: threading.Event) -> None:
    columns = (
        TextColumn("labeling"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[errors]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=rows, completed=already_done, rate="starting workers", errors="")
        seen = _Rate()
        while True:
            stopping = stop.wait(BAR_INTERVAL_S)
            counts = _counts(monitor)
            rate, failed = seen.of(counts.total()), count_failures(counts)
            progress.update(
                task,
                completed=already_done + counts.total(),
                rate=f"{rate:.0f}/s" if rate else "starting workers" if not counts else "",
                errors=f"{failed} errors" if failed else "",
            )
            if stopping:
                return


def _show_lines(monitor: Any, rows: int, already_done: int, stop: threading.Event) -> None:
    seen = _Rate()
    while not stop.wait(LINE_INTERVAL_S):
        counts = _counts(monitor)
        done, rate = already_done + counts.total(), seen.of(counts.total())
        left = f", {(rows - done) / rate:.0f} s left" if rate else ""
        print(
            f"{done:,} of {rows:,} images, {rate:.0f}/s, {count_failures(counts)} errors{left}",
            file=sys.stderr,
            flush=True,
        )

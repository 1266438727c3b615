"""Progress of a running job, as its monitor counts it: a bar on a terminal, else plain lines; and `progress.json` for scripts."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple, Protocol

import ray
from pydantic import BaseModel, ConfigDict
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mlcls_ray.job.monitor import count_failures
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.terminal import make_console, on_first_sigint

POLL_INTERVAL_S = 0.5
LINE_INTERVAL_S = FILE_INTERVAL_S = 5.0
ASK_TIMEOUT_S = 5.0


def stop_on_interrupt(monitor: Any) -> contextlib.AbstractContextManager[None]:
    """While the body runs, the first Ctrl-C asks the workers to finish what they have in hand; the second one interrupts."""
    return on_first_sigint(lambda: monitor.stop.remote("interrupt"), "what is in hand is written")


class Snapshot(NamedTuple):
    """The state of a run at one moment."""

    rows: int
    done: int
    """Rows that are labeled, those of earlier attempts included."""
    statuses: Counter[str]
    """Rows that this attempt labeled, counted by status."""
    rate: float
    """Images per second; 0 while it is not known."""

    @property
    def seconds_left(self) -> float | None:
        return (self.rows - self.done) / self.rate if self.rate else None


class View(Protocol):
    """One way of showing progress."""

    interval_s: float

    def show(self, snapshot: Snapshot, is_last: bool) -> None: ...


@contextlib.contextmanager
def show_progress(monitor: Any, store: Store, run_id: str, rows: int, already_done: int) -> Iterator[None]:
    """Show progress while the body runs: on stderr, and in the run's `progress.json`."""
    with contextlib.ExitStack() as stack:
        screen: View = stack.enter_context(BarView.open(rows, already_done)) if sys.stderr.isatty() else LineView()
        stop = threading.Event()
        poll = threading.Thread(
            target=poll_progress,
            args=(lambda: ask_counts(monitor), (screen, FileView(store, run_id)), rows, already_done, stop.wait),
            daemon=True,
            name="progress",
        )
        poll.start()
        try:
            yield
        finally:
            stop.set()
            poll.join(timeout=2 * ASK_TIMEOUT_S)


def poll_progress(
    counts: Callable[[], Counter[str]],
    views: Sequence[View],
    rows: int,
    already_done: int,
    wait: Callable[[float], bool],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Ask for `counts` again and again, and pass them to each view at its own interval, until `wait` returns True."""
    rate = Rate(clock)
    shown_at = [clock()] * len(views)
    is_last = False
    while not is_last:
        is_last = wait(POLL_INTERVAL_S)
        statuses = counts()
        snapshot = Snapshot(rows, already_done + statuses.total(), statuses, rate.update(statuses.total()))
        now = clock()
        for number, view in enumerate(views):
            if is_last or now - shown_at[number] >= view.interval_s:
                shown_at[number] = now
                with contextlib.suppress(Exception):  # what is shown must never end what is done
                    view.show(snapshot, is_last)


def ask_counts(monitor: Any) -> Counter[str]:
    """Ask the monitor for its counts; none while it cannot be asked (its node died, Ray shuts down)."""
    try:
        return Counter(ray.get(monitor.counts.remote(), timeout=ASK_TIMEOUT_S))
    except Exception:
        return Counter()


class Rate:
    """Images per second since the first ones were seen. Begins anew when the monitor does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.first: tuple[float, int] | None = None

    def update(self, done: int) -> float:
        now = self.clock()
        if done and (self.first is None or done < self.first[1]):
            self.first = (now, done)
        if self.first is None or now - self.first[0] < 0.1:
            return 0.0
        return max(done - self.first[1], 0) / (now - self.first[0])


class BarView:
    """A bar on a terminal."""

    interval_s = POLL_INTERVAL_S

    def __init__(self, bar: Bar, rows: int, already_done: int) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=rows, completed=already_done, rate="starting workers", errors="")

    @classmethod
    @contextlib.contextmanager
    def open(cls, rows: int, already_done: int) -> Iterator[BarView]:
        columns = (
            TextColumn("labeling"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[errors]}"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=make_console(stderr=True)) as bar:
            yield cls(bar, rows, already_done)

    def show(self, snapshot: Snapshot, is_last: bool) -> None:
        failed = count_failures(snapshot.statuses)
        starting = "" if snapshot.statuses else "starting workers"
        self.bar.update(
            self.task,
            completed=snapshot.done,
            rate=f"{snapshot.rate:.0f}/s" if snapshot.rate else starting,
            errors=f"{failed} errors" if failed else "",
        )


class LineView:
    """A line every few seconds, where there is no terminal."""

    interval_s = LINE_INTERVAL_S

    def show(self, snapshot: Snapshot, is_last: bool) -> None:
        if is_last:
            return  # the summary follows
        left = "" if snapshot.seconds_left is None else f", {snapshot.seconds_left:.0f} s left"
        failed = count_failures(snapshot.statuses)
        line = f"{snapshot.done:,} of {snapshot.rows:,} images, {snapshot.rate:.0f}/s, {failed} errors{left}"
        print(line, file=sys.stderr, flush=True)


class Progress(BaseModel):
    """`progress.json`."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    state: Literal["running", "ended"]
    """`ended` when nobody works on the run any more, committed (`_SUCCESS`) or not."""
    rows: int
    done: int
    """Earlier attempts included."""
    statuses: dict[str, int]
    """Rows that this attempt labeled, counted by status."""
    images_per_s: float
    seconds_left: float | None
    updated_at: datetime


class FileView:
    """`progress.json` in the run's folder."""

    interval_s = FILE_INTERVAL_S

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = run_id

    def show(self, snapshot: Snapshot, is_last: bool) -> None:
        progress = Progress(
            run_id=self.run_id,
            state="ended" if is_last else "running",
            rows=snapshot.rows,
            done=snapshot.done,
            statuses=dict(snapshot.statuses),
            images_per_s=round(snapshot.rate, 1),
            seconds_left=None if snapshot.seconds_left is None else round(snapshot.seconds_left, 1),
            updated_at=datetime.now(timezone.utc),
        )
        self.store.write_json(layout.progress(self.run_id), progress.model_dump(mode="json"))

"""Progress of a running job, as its monitor counts it: a bar on a terminal, else plain lines; and `progress.json` for scripts."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any, NamedTuple, Protocol

import ray
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mlcls_ray.background import Wait, in_background
from mlcls_ray.job.monitor import count_failures
from mlcls_ray.storage.store import Store
from mlcls_ray.table.progress import Progress, write_progress
from mlcls_ray.terminal import make_console, on_first_sigint, print_plain, shows_bars

POLL_INTERVAL_S = 0.5
LINE_INTERVAL_S = FILE_INTERVAL_S = 5.0
UNCHANGED_INTERVAL_S = 30.0
"""Seconds between two lines that say nothing new, at least, where there is no terminal."""
ASK_TIMEOUT_S = 5.0
STARTING = "starting the workers"


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
    seconds: float = 0.0
    """Since the start of the workers."""

    @property
    def seconds_left(self) -> float | None:
        return (self.rows - self.done) / self.rate if self.rate else None


class View(Protocol):
    """One way of showing progress."""

    interval_s: float

    def show(self, snapshot: Snapshot, is_last: bool) -> None: ...


@contextlib.contextmanager
def show_progress(
    monitor: Any, stores: Iterable[Store], run_id: str, rows: int, already_done: int
) -> Iterator[Callable[[Mapping[str, int]], None]]:
    """Show progress while the body runs: on stderr, and in the run's `progress.json` of each output.

    Yields a function that the body calls at its end with the rows by status that it has written. The monitor's last counts may still be
    under way.
    """
    with contextlib.ExitStack() as stack:
        screen: View = stack.enter_context(BarView.open(rows, already_done)) if shows_bars() else LineView()
        files = [FileView(store, run_id) for store in stores]
        counts = Counts(lambda: ask_counts(monitor))
        poll = partial(poll_progress, counts, (screen, *files), rows, already_done)
        with in_background(poll, "progress", join_s=2 * ASK_TIMEOUT_S):
            yield counts.finish


class Counts:
    """Rows by status: as they were counted last, and at the end as they were written."""

    def __init__(self, ask: Callable[[], Counter[str] | None]) -> None:
        """`ask` returns None while it cannot tell."""
        self.ask = ask
        self.last: Counter[str] = Counter()
        self.is_final = False

    def __call__(self) -> Counter[str]:
        counted = None if self.is_final else self.ask()
        if counted is not None and not self.is_final:
            self.last = counted
        return self.last

    def finish(self, written: Mapping[str, int]) -> None:
        self.is_final, self.last = True, Counter(written)


def poll_progress(
    counts: Callable[[], Counter[str]],
    views: Sequence[View],
    rows: int,
    already_done: int,
    wait: Wait,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Ask for `counts` again and again, and pass them to each view at its own interval, until `wait` returns True."""
    rate, started = Rate(clock), clock()
    shown_at = [started] * len(views)
    is_last = False
    while not is_last:
        is_last = wait(POLL_INTERVAL_S)
        statuses = counts()
        now, done = clock(), statuses.total()
        snapshot = Snapshot(rows, already_done + done, statuses, rate.update(done), now - started)
        for number, view in enumerate(views):
            if is_last or now - shown_at[number] >= view.interval_s:
                shown_at[number] = now
                with contextlib.suppress(Exception):  # what is shown must never end what is done
                    view.show(snapshot, is_last)


def ask_counts(monitor: Any) -> Counter[str] | None:
    """Ask the monitor for its counts; None while it cannot be asked (its node died, Ray shuts down)."""
    try:
        return Counter(ray.get(monitor.counts.remote(), timeout=ASK_TIMEOUT_S))
    except Exception:
        return None


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
        self.task = bar.add_task("", total=rows, completed=already_done, rate=STARTING, errors="")

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
        with Bar(*columns, console=make_console(stderr=True), redirect_stdout=False) as bar:
            yield cls(bar, rows, already_done)

    def show(self, snapshot: Snapshot, is_last: bool) -> None:
        starting = "" if snapshot.statuses or is_last else f"{STARTING}, {snapshot.seconds:.0f} s"
        self.bar.update(
            self.task,
            completed=snapshot.done,
            rate=_rate(snapshot.rate) if snapshot.rate else starting,
            errors=_errors(snapshot) if count_failures(snapshot.statuses) else "",
        )


class LineView:
    """A line every few seconds, where there is no terminal: while something changes, and at the end."""

    interval_s = LINE_INTERVAL_S

    def __init__(self) -> None:
        self.shown = Snapshot(0, 0, Counter(), 0.0)

    def show(self, snapshot: Snapshot, is_last: bool) -> None:
        is_new = snapshot.statuses != self.shown.statuses
        if not (is_last or is_new or snapshot.seconds - self.shown.seconds >= UNCHANGED_INTERVAL_S):
            return
        self.shown = snapshot
        print_plain(_line(snapshot, is_last), error=True)


def _line(snapshot: Snapshot, is_last: bool) -> str:
    if not snapshot.statuses and not is_last:
        return f"{STARTING}, {snapshot.seconds:.0f} s"
    parts = [f"{snapshot.done:,} of {snapshot.rows:,} images"]
    if snapshot.rate:
        parts.append(_rate(snapshot.rate))
    parts.append(_errors(snapshot))
    if snapshot.done >= snapshot.rows and not is_last:
        parts.append("writing")
    elif snapshot.seconds_left is not None and not is_last:
        parts.append(f"{snapshot.seconds_left:.0f} s left")
    return ", ".join(parts)


def _rate(per_s: float) -> str:
    """Round a rate; one below ten has a decimal, because 0/s would say that nothing happens."""
    return f"{per_s:.0f}/s" if per_s >= 10 else f"{per_s:.1f}/s"


def _errors(snapshot: Snapshot) -> str:
    failed = count_failures(snapshot.statuses)
    return f"{failed:,} error" + ("" if failed == 1 else "s")


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
        write_progress(self.store, progress)

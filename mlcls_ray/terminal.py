"""The terminal: show text of strangers as text, say what a command is doing, suppress the output of native libraries, handle Ctrl-C.

File names, error messages and class names come from strangers. On a terminal, or in a log that a terminal shows later, they must not
move the cursor, hide a line, reverse its order, or be taken for Rich's markup.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

Item = TypeVar("Item")
LINE_INTERVAL_S = 10.0
"""Seconds between two printed counts, at least, where there is no terminal."""
COUNT_INTERVAL = 1000
"""A count is shown after so many items."""

_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # with ESC and newline, and the C1 controls, which some terminals obey too
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # marks, overrides and isolates of direction; line and paragraph separators
    "\ud800-\udfff\ufeff]"  # bytes of a file name that are not UTF-8, which no stream can write; the byte order mark
)
_CONTROLS_BUT_LINES = re.compile(_CONTROLS.pattern.replace("[\x00-\x1f", "[\x00-\x08\x0b-\x1f"))


def plain(text: object, keep_lines: bool = False) -> str:
    """Replace each control character by its JSON escape (ESC by `\\u001b`): the text stays one line, or JSON, and readable.

    Args:
        keep_lines: newlines and tabs are ours, and stay.
    """
    controls = _CONTROLS_BUT_LINES if keep_lines else _CONTROLS
    return controls.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def make_console(stderr: bool = False) -> Console:
    """Make a console of Rich that takes text as it is: no markup, no emoji codes, no guesses about colours. Style is a `Text`'s."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_plain(*values: object, error: bool = False) -> None:
    """Print values in one line, without their control characters; `error`: on standard error."""
    print(*(plain(value) for value in values), file=sys.stderr if error else sys.stdout, flush=error)


def shows_bars() -> bool:
    """Tell whether standard error can show a line that changes: a terminal, and not a notebook's, which keeps each state of the line."""
    return sys.stderr.isatty() and "JPY_PARENT_PID" not in os.environ and os.environ.get("TERM") != "dumb"


class Steps:
    """Says on standard error what a command is doing, while it has nothing else to show. This one says nothing; see `showing_steps`."""

    def say(self, step: str, on_terminal_only: bool = False) -> None:
        """Show a step that begins now. `on_terminal_only`: of a step of seconds, which elsewhere needs no line."""

    def count(self, done: int, unit: str) -> None:
        """Show how far the step is."""

    def pause(self) -> None:
        """Leave the terminal to something else, such as a bar, until the next step."""


SILENT = Steps()


class StepLines(Steps):
    """A line for each step, and now and then one with its count: where there is no terminal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.step = ""
        self.printed_at = clock()

    def say(self, step: str, on_terminal_only: bool = False) -> None:
        if step != self.step and not on_terminal_only:
            self._print(step)
        self.step = step

    def count(self, done: int, unit: str) -> None:
        if self.clock() - self.printed_at >= LINE_INTERVAL_S:
            self._print(f"{self.step}: {done:,} {unit}")

    def _print(self, line: str) -> None:
        self.printed_at = self.clock()
        print_plain(line, error=True)


class StepSpinner(Steps):
    """A line on a terminal, which the next step replaces and the last one leaves empty."""

    def __init__(self) -> None:
        self.step = ""
        self.live: Live | None = None

    def say(self, step: str, on_terminal_only: bool = False) -> None:
        self.step = plain(step)
        self._show(self.step)

    def count(self, done: int, unit: str) -> None:
        self._show(f"{self.step}: {done:,} {unit}")

    def pause(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _show(self, line: str) -> None:
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        spinner = Spinner("dots", Text(line))
        if self.live is None:
            # Standard output is not redirected: what is printed there would end on standard error.
            self.live = Live(spinner, console=make_console(stderr=True), transient=True, redirect_stdout=False)
            self.live.start(refresh=True)
        else:
            self.live.update(spinner, refresh=True)


@contextlib.contextmanager
def showing_steps(on_terminal_only: bool = False) -> Iterator[Steps]:
    """Yield what shows the steps of a command: a line that changes on a terminal, else a line for each step.

    `on_terminal_only`: elsewhere nothing, for commands of seconds.
    """
    steps = StepSpinner() if shows_bars() else Steps() if on_terminal_only else StepLines()
    try:
        yield steps
    finally:
        steps.pause()


def counted(items: Iterable[Item], steps: Steps, unit: str) -> Iterator[Item]:
    """Pass items on, and show their number now and then."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % COUNT_INTERVAL == 0:
            steps.count(number, unit)


@contextlib.contextmanager
def on_first_sigint(stop: Callable[[], None], message: str) -> Iterator[None]:
    """While the body runs, the first Ctrl-C prints `message` and calls `stop`; the second one interrupts as usual.

    Outside the main thread nothing changes, because Python handles signals in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(f"stopping: {message}; Ctrl-C again leaves at once", file=sys.stderr, flush=True)
        stop()

    take_sigterm_back()
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_on_sigterm() -> None:
    """Let SIGTERM do from now on what Ctrl-C does at its moment; also where Ctrl-C is ignored, as in a shell's background."""

    def handle(number: int, frame: FrameType | None) -> None:
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, handle)
    sys.meta_path.insert(0, _PaddleFinder())


def take_sigterm_back() -> None:
    """Put Python's handler of SIGTERM back, if there is one: `import paddle` puts one of C++ in its place, which aborts the process."""
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and callable(handler):
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def deferring_interrupts() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back while the body imports native code, which would make an ImportError of them, or take SIGTERM for itself.

    Raises:
        KeyboardInterrupt: at the end, if one came.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not handlers:
        yield
        return
    arrived: list[int] = []
    for number in handlers:
        signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived and callable(interrupt := handlers[signal.Signals(arrived[0])]):
            interrupt(arrived[0], None)


class _PaddleFinder(MetaPathFinder):
    """Defers interrupts during `import paddle`, whichever command imports it, and wherever."""

    NAMES = ("paddle", "paddle.base")
    """The second one puts the handler of C++ in the place of ours, long before the first one is imported as a whole."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in self.NAMES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_undisturbed(module: ModuleType) -> None:
            with deferring_interrupts():
                execute(module)

        spec.loader.exec_module = execute_undisturbed  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def own_sigterm_handler() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, if it has one, while the body runs `ray.init`, which puts `sys.exit(15)` in its place."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    try:
        yield
    except SystemExit as error:
        if error.code == signal.SIGTERM:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def suppress_native_output() -> Iterator[None]:
    """Discard what native code (Paddle, Ray) writes to standard output and error while the body runs: it means nothing to a user.

    Exceptions are not affected. Do not use it while other threads print.
    """
    sys.stdout.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with open(os.devnull, "wb") as devnull:
            for descriptor in saved:
                os.dup2(devnull.fileno(), descriptor)
        yield
    finally:
        take_sigterm_back()  # Paddle may have been loaded
        ctypes.CDLL(None).fflush(None)  # C libraries may still buffer output for these descriptors
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)

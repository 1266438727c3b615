"""The terminal: keeping libraries' notes off it, and hearing Ctrl-C."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def on_first_sigint(ask: Callable[[], None], said: str) -> Iterator[None]:
    """While the body runs, the first Ctrl-C says `said` and calls `ask`; the second one interrupts.

    Ctrl-C is left alone outside the main thread, where Python allows no other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(f"stopping: {said}; Ctrl-C again leaves at once", file=sys.stderr, flush=True)
        ask()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def suppress_native_output() -> Iterator[None]:
    """Silence what C++ code writes to standard output and error while it starts (Paddle, Ray); it means nothing to a user.

    Python's exceptions are not affected. Not for code that runs beside other threads that print.
    """
    sys.stdout.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with open(os.devnull, "wb") as devnull:
            for descriptor in saved:
                os.dup2(devnull.fileno(), descriptor)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has buffered for the silenced descriptors
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)

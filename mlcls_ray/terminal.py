"""The terminal: suppress the output of native libraries, and handle Ctrl-C."""

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

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
        ctypes.CDLL(None).fflush(None)  # C libraries may still buffer output for these descriptors
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)

"""Do something in a thread, again and again, while something else runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

Wait = Callable[[float], bool]
"""Waits for so many seconds; True, and at once, when the thread is to end."""


@contextlib.contextmanager
def in_background(work: Callable[[Wait], None], name: str, join_s: float | None = None) -> Iterator[None]:
    """Run `work` in a thread of this name while the body runs.

    Args:
        work: waits by the function that it is given, and returns when that says so.
        join_s: seconds to wait for its end at most; None: until it ends.
    """
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop.wait,), daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(join_s)

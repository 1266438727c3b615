"""The terminal: keeping libraries' notes off it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Silence what C++ code writes to file descriptor 2 while it starts (Paddle, Ray); it means nothing to a user.

    Python's exceptions are not affected. Not for code that runs beside other threads that print.
    """
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)

"""The terminal: keeping libraries' notes off it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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

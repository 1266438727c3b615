"""The watch over an attempt's nodes: when one is lost the attempt ends, and the next one uses the nodes that are left.

Without it the job would wait for ever (ray-project/ray#26991): Ray restarts a lost node's workers on the others, but their CPUs are taken.
The workers wait for a CPU, or take the one that Ray Data's own tasks need, and the tasks that were theirs wait for them.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any

import ray

from mlcls_ray.background import Wait, in_background

LOOK_INTERVAL_S = 2.0
GRACE_S = 20.0
"""Seconds that the remaining workers have to hand over their rows, before the attempt is cut off."""


class NodeLostError(BaseException):
    """Raised into an attempt that did not end by itself. Not an `Exception`, so that nothing on the way handles it."""


class NodeWatch:
    """Watches the nodes that are alive when it is made."""

    def __init__(self) -> None:
        self.nodes = _living()

    def lost(self) -> int:
        """Count the nodes that are gone."""
        return len(self.nodes - _living())

    @contextlib.contextmanager
    def ending_attempt(self, monitor: Any, grace_s: float = GRACE_S) -> Iterator[None]:
        """While the body runs, a lost node asks the workers to finish what they have in hand. After `grace_s` the body is cut off.

        Outside the main thread, where Python cannot interrupt, the workers are asked only.

        Raises:
            NodeLostError: the body was cut off.
        """
        is_main = threading.current_thread() is threading.main_thread()
        watch = partial(self._watch, monitor, grace_s if is_main else None)
        before = signal.signal(signal.SIGUSR1, _cut_off) if is_main else None
        try:
            with in_background(watch, "nodes"):  # it may still cut off while its end is waited for
                yield
        finally:
            if is_main:
                signal.signal(signal.SIGUSR1, before)

    def _watch(self, monitor: Any, grace_s: float | None, wait: Wait) -> None:
        while not (lost := self.lost()):
            if wait(LOOK_INTERVAL_S):
                return
        print(f"{lost} of {len(self.nodes)} nodes lost; continuing on the others", file=sys.stderr, flush=True)
        waited = 0.0
        while grace_s is None or waited < grace_s:
            # Again and again: the monitor may have been on that node, and start without a reason to stop.
            monitor.stop.remote("nodes")
            if wait(LOOK_INTERVAL_S):
                return
            waited += LOOK_INTERVAL_S
        # Simulated, not sent: Ray Data waits in a loop of short sleeps, and a real signal would run on whatever signal stack the native
        # libraries have left (with all of them loaded it crashed the process).
        _thread.interrupt_main(signal.SIGUSR1)


def _cut_off(number: int, frame: FrameType | None) -> None:
    raise NodeLostError


def _living() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])

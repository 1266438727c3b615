"""Run calls ahead in threads, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch_map(
    function: Callable[[T], R], items: Iterable[T], threads: ThreadPoolExecutor, ahead: int
) -> Iterator[R]:
    """Yield `function(item)` for each item, in order, with up to `ahead` calls running before their results are needed.

    Unlike `ThreadPoolExecutor.map`, it takes no more than `ahead` items in advance: neither items nor results pile up.
    """
    running: deque[Future[R]] = deque()
    for item in items:
        running.append(threads.submit(function, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()

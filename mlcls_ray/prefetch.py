"""Overlapping calls, in order and bounded."""

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
    """`map` in order, with `ahead` calls running in threads before their result is asked for.

    Unlike `ThreadPoolExecutor.map` it takes from `items` only as far as it runs ahead, so that neither they nor the results pile up.
    """
    running: deque[Future[R]] = deque()
    for item in items:
        running.append(threads.submit(function, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()

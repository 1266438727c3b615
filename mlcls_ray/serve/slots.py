"""Bounds on what requests hold at once: places to work or to wait in, and memory. Beyond them a request is refused, and told so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator


class FullError(Exception):
    """All places are taken; the message is for the client."""


class Slots:
    """Places that requests hold while they are worked on. `count` requests hold one at once, and `waiting` more may wait for one."""

    def __init__(self, count: int, waiting: int, message: str) -> None:
        """`message`: what a client reads whose request finds no place."""
        self._semaphore = asyncio.Semaphore(count)
        self._places = count + waiting
        self._message = message
        self.taken = 0

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it inside.

        Raises:
            FullError: too many requests wait already.
        """
        if self.taken >= self._places:
            raise FullError(self._message)
        self.taken += 1
        try:
            async with self._semaphore:
                yield
        finally:
            self.taken -= 1


class Memory:
    """Bytes of bodies that are held at once, `limit` of them at most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Return a function that adds to the bytes of one request; they are held until the end of the `with`.

        The function raises FullError where all requests together hold more than the limit.
        """
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            mine += size
            self.held += size
            if self.held > self.limit:
                raise FullError("the service holds too many large requests; try again later")

        try:
            yield take
        finally:
            self.held -= mine

"""Bounds of what requests hold at once, and of their bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mlcls_ray.serve.body import RequestError, read_body
from mlcls_ray.serve.slots import FullError, Memory, Slots


async def until(condition: asyncio.Event, slots: Slots, log: list[str], name: str) -> None:
    async with slots.hold():
        log.append(name)
        await condition.wait()


def test_some_work_some_wait_and_the_next_is_refused() -> None:
    async def run() -> list[str]:
        slots, done, log = Slots(2, 1, "busy"), asyncio.Event(), []
        tasks = [asyncio.create_task(until(done, slots, log, str(number))) for number in range(3)]
        await asyncio.sleep(0)
        assert (log, slots.taken) == (["0", "1"], 3)
        with pytest.raises(FullError, match="busy"):
            async with slots.hold():
                pass
        tasks[2].cancel()  # a client that hangs up gives its place back
        await asyncio.wait([tasks[2]])
        tasks.append(asyncio.create_task(until(done, slots, log, "3")))
        await asyncio.sleep(0)
        done.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert slots.taken == 0
        return log

    assert asyncio.run(run()) == ["0", "1", "3"]


def test_memory_is_given_back() -> None:
    memory = Memory(10)
    with memory.hold() as take:
        take(6)
        with pytest.raises(FullError, match="too many large"), memory.hold() as another:
            another(5)
        assert memory.held == 6
    assert memory.held == 0


@pytest.mark.parametrize(
    ("limit", "code", "message"), [(100, 408, "not complete after 0.01 s"), (3, 413, "than 3 bytes")]
)
def test_a_body_is_bounded_in_time_and_size(limit: int, code: int, message: str) -> None:
    taken: list[int] = []

    async def drip() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"
        await asyncio.Event().wait()

    with pytest.raises(RequestError, match=message) as caught:
        asyncio.run(read_body(drip(), limit, 0.01, taken.append))
    assert caught.value.code == code
    assert sum(taken) <= limit

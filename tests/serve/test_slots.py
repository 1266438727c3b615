"""Bounds of what requests hold at once."""

from __future__ import annotations

import asyncio

import pytest

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

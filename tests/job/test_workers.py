"""Workers: how blocks are cut, that stages on the device overlap and never run twice at once, and what too little memory does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from mlcls_ray import schema
from mlcls_ray.job.monitor import RunMonitor
from mlcls_ray.job.workers import Worker, count_rows, cut_block, halves
from mlcls_ray.stages.spec import Batch, RunSpec, Stage, model_column, model_rows
from tests.stages.specs import run_spec


def block(*sizes: int | None) -> pa.Table:
    return pa.table({schema.SIZE_BYTES: pa.array(sizes, pa.int64())})


@pytest.mark.parametrize(
    ("sizes", "most_bytes", "expected"),
    [
        ([10] * 7, None, [3, 3, 1]),
        ([10] * 7, 1000, [3, 3, 1]),
        ([10] * 5, 25, [2, 2, 1]),
        ([99, 1, 99, 1, 1], 50, [1, 1, 1, 2]),
        ([None, None, None, None], 5, [3, 1]),
        ([None, 60, 60, 10], 100, [2, 2]),
        ([], 5, []),
    ],
)
def test_batches_by_rows_and_bytes(sizes: list[int | None], most_bytes: int | None, expected: list[int]) -> None:
    batches = list(cut_block(block(*sizes), 3, most_bytes))
    assert [batch.num_rows for batch in batches] == expected
    assert [size for batch in batches for size in batch.column(0).to_pylist()] == sizes


@pytest.mark.parametrize("count", [2, 3, 8])
def test_halves(count: int) -> None:
    columns = {"a": np.arange(count), "b": np.arange(count, dtype=object)}
    left, right = halves(columns, count)
    assert count_rows(left) + count_rows(right) == count
    assert 0 <= count_rows(left) - count_rows(right) <= 1
    assert np.array_equal(np.concatenate([left["b"], right["b"]]), columns["b"])
    table = pa.table({"a": np.arange(count)})
    assert pa.concat_tables(halves(table, count)).equals(table)


class OnDevice:
    """A stage that one thread at a time may call."""

    uses_device: ClassVar[bool] = True

    def __init__(self, spec: RunSpec) -> None:
        self.seconds: dict[str, float] = {}
        self.called = Lock()
        self.sizes: list[int] = []

    def __call__(self, batch: Batch) -> Batch:
        assert self.called.acquire(blocking=False), "two threads at once"
        self.sizes.append(len(batch[schema.ROW_ID]))
        self.work(len(self.sizes))
        self.called.release()
        return batch

    def work(self, call: int) -> None:
        pass


class FirstOnDevice(OnDevice):
    second_call: ClassVar[Event] = Event()

    def work(self, call: int) -> None:
        if call == 2:
            self.second_call.set()


class SecondOnDevice(OnDevice):
    """Its first batch is not done before the stage before it has begun the second one."""

    def work(self, call: int) -> None:
        assert FirstOnDevice.second_call.wait(20), "the stages do not overlap"


class HasRoomForThree(OnDevice):
    def __call__(self, batch: Batch) -> Batch:
        if len(batch[schema.ROW_ID]) > 3:
            raise RuntimeError("CUDA failure 2: out of memory")
        return super().__call__(batch)


class AsRows:
    """The end of a slice: rows of the label table."""

    uses_device: ClassVar[bool] = False

    def __init__(self, spec: RunSpec) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, batch: Batch) -> pa.Table:
        count = len(batch[schema.ROW_ID])
        columns = {
            schema.ROW_ID: pa.array(batch[schema.ROW_ID]),
            schema.STATUS: pa.array(["ok"] * count),
            schema.SIZE_BYTES: pa.array([1] * count, pa.int64()),
        }
        return pa.table({model_column("m"): pa.StructArray.from_arrays(list(columns.values()), list(columns))})


@pytest.fixture(scope="module")
def monitor(loopback_ray: None) -> Any:
    return RunMonitor.remote(None, 0)  # type: ignore[attr-defined]


def worker_of(monitor: Any, *stages: type[Stage]) -> Worker:
    return Worker(stages, run_spec(), monitor)


def row_ids(parts: Iterator[pa.Table]) -> list[list[int]]:
    return [model_rows(part, "m").column(schema.ROW_ID).to_pylist() for part in parts]


def test_stages_on_the_device_overlap(monitor: Any) -> None:
    """As Ray calls it where a card decodes: several batches at once, each in a thread."""
    FirstOnDevice.second_call.clear()
    worker = worker_of(monitor, FirstOnDevice, SecondOnDevice, AsRows)
    batches = [{schema.ROW_ID: np.arange(8) + 8 * number} for number in range(6)]
    with ThreadPoolExecutor(3) as calls:
        rows = list(calls.map(lambda batch: row_ids(worker(batch)), batches))
    assert [part for parts in rows for part in parts] == [batch[schema.ROW_ID].tolist() for batch in batches]
    assert worker.in_hand == {}


def test_a_batch_that_finds_no_room_is_halved_and_so_are_those_after_it(monitor: Any) -> None:
    worker = worker_of(monitor, OnDevice, HasRoomForThree, AsRows)
    first = {schema.ROW_ID: np.arange(8)}
    assert row_ids(worker(first)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    tried, scored = (stage.sizes for stage in worker.stages[:2])  # type: ignore[attr-defined]
    assert (tried, scored) == ([8, 4, 2, 2, 2, 2], [2, 2, 2, 2])
    assert row_ids(worker(first)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert tried[6:] == [2, 2, 2, 2], "it is not tried again"


def test_one_image_that_finds_no_room_ends_the_worker(monitor: Any) -> None:
    class HasNoRoom(HasRoomForThree):
        def __call__(self, batch: Batch) -> Batch:
            raise MemoryError("gpu:0 is out of memory")

    with pytest.raises(MemoryError):
        list(worker_of(monitor, HasNoRoom, AsRows)({schema.ROW_ID: np.arange(4)}))

"""The parts of a worker that need no Ray: how blocks are cut into batches, and batches into halves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlcls_ray import schema
from mlcls_ray.job.workers import count_rows, cut_block, halves


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

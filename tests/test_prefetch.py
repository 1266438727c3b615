"""Overlapping calls stay in order and take no more than they run ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlcls_ray.prefetch import prefetch_map


def test_order_and_bound() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(4) as threads:
        results = prefetch_map(lambda number: number * 2, items(), threads, ahead=3)
        assert next(results) == 0
        assert len(taken) == 4
        assert list(results) == [number * 2 for number in range(1, 50)]


def test_calls_overlap() -> None:
    both = threading.Barrier(2, timeout=10)
    with ThreadPoolExecutor(2) as threads:
        assert len(list(prefetch_map(lambda _: both.wait(), range(2), threads, ahead=2))) == 2


def test_an_exception_reaches_the_reader() -> None:
    with ThreadPoolExecutor(2) as threads, pytest.raises(ZeroDivisionError):
        list(prefetch_map(lambda number: 1 // number, [1, 0, 1], threads, ahead=2))

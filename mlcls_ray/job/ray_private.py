"""Private APIs of Ray, each with the version in which it was seen. `ray` is pinned below the next minor version because of this file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import ray.data


@contextlib.contextmanager
def first_parquet_reader() -> Iterator[None]:
    """Read Parquet by Ray Data's first reader (2.60): the second one starts actors for the footers of small files, two seconds a run."""
    context = ray.data.DataContext.get_current()
    before, context.use_datasource_v2 = context.use_datasource_v2, False
    try:
        yield
    finally:
        context.use_datasource_v2 = before

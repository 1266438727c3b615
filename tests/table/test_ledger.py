"""The ledger: a bit a row, read off the fragments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import RowSet, contains, describe_fragment, fragment_names, read_rows, write_fragment


@given(st.lists(st.lists(st.integers(-3, 43), max_size=12), max_size=6))
def test_row_set_counts_like_a_set(batches: list[list[int]]) -> None:
    rows = RowSet(40)
    for batch in batches:
        rows.add(np.array(batch, dtype=np.int64))
    flat = [value for batch in batches for value in batch]
    inside = [value for value in flat if 0 <= value < 40]
    assert len(rows) == len(set(inside))
    assert rows.duplicates == len(inside) - len(set(inside))
    assert rows.out_of_range == len(flat) - len(inside)
    assert np.flatnonzero(contains(rows.bits, np.arange(40))).tolist() == sorted(set(inside))


def test_a_billion_rows_are_125_megabytes() -> None:
    assert RowSet(1_000_000_000).bits.nbytes == 125_000_000


def test_fragments(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    table = pa.table({schema.ROW_ID: pa.array([3, 1], pa.int64()), schema.STATUS: ["ok", "empty"]})
    name = layout.fragment_name(2, 7)
    fragment = write_fragment(store, "r", name, table)
    assert (fragment.rows, fragment.statuses) == (2, {"empty": 1, "ok": 1})
    assert describe_fragment(store, "r", name) == fragment
    assert fragment_names(store, "r") == [name]
    assert layout.attempt_of(name) == 2
    assert len(read_rows(store, "r", [name], 5)) == 2

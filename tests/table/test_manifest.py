"""The manifest: streamed into parts, row ids in order, a dead listing's parts replaced."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.manifest import manifest_rows, write_manifest


def test_parts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write(f"{layout.manifest_folder('r')}/part-00009.parquet", b"left by a listing that died")
    first = InputEntry("/0.jpg", 5, datetime(2026, 1, 2, tzinfo=timezone.utc), "etag")
    entries = [first, *(InputEntry(f"/{number}.jpg") for number in range(1, 10))]
    rows = write_manifest(store, "r", entries, part_rows=4)
    assert rows == manifest_rows(store, "r") == 10
    assert store.names(layout.manifest_folder("r")) == [f"part-0000{number}.parquet" for number in range(3)]
    table = pq.read_table(tmp_path / layout.manifest_folder("r"))
    assert table.schema.remove_metadata().equals(schema.MANIFEST)
    assert table.column(schema.ROW_ID).to_pylist() == list(range(10))
    assert table.slice(0, 1).to_pylist()[0] == {
        "row_id": 0, "uri": "/0.jpg", "size_bytes": 5, "mtime": datetime(2026, 1, 2, tzinfo=timezone.utc), "etag": "etag",
        "attempts": 0,
    }  # fmt: skip


def test_the_listing_is_streamed(tmp_path: Path) -> None:
    """No more entries are taken than have been written, but for one part."""
    store = Store(str(tmp_path))

    def endless() -> Iterator[InputEntry]:
        for number in itertools.count():
            assert len(store.names(layout.manifest_folder("r"))) >= number // 4, (
                "a part is written before the next begins"
            )
            yield InputEntry(f"/{number}.jpg")

    assert write_manifest(store, "r", itertools.islice(endless(), 7), part_rows=4) == 7

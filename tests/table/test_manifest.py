"""The manifest: streamed into parts, row ids in order, a dead listing's parts replaced."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlcls_ray import schema
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout, manifest
from mlcls_ray.table.manifest import manifest_rows, write_manifest


def test_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PART_ROWS", 4)
    store = Store(str(tmp_path))
    store.write(f"{layout.manifest_folder('r')}/part-00009.parquet", b"left by a listing that died")
    told = InputEntry("/0.jpg", 5, datetime(2026, 1, 2, tzinfo=timezone.utc), "etag")
    rows = write_manifest(store, "r", [told, *(InputEntry(f"/{number}.jpg") for number in range(1, 10))])
    assert rows == manifest_rows(store, "r") == 10
    assert store.names(layout.manifest_folder("r")) == [f"part-0000{number}.parquet" for number in range(3)]
    table = pq.read_table(tmp_path / layout.manifest_folder("r"))
    assert table.schema.remove_metadata().equals(schema.MANIFEST)
    assert table.column(schema.ROW_ID).to_pylist() == list(range(10))
    assert table.slice(0, 1).to_pylist()[0] == {
        "row_id": 0, "uri": "/0.jpg", "size_bytes": 5, "mtime": datetime(2026, 1, 2, tzinfo=timezone.utc), "etag": "etag",
        "attempts": 0,
    }  # fmt: skip


def test_limit_stops_the_listing(tmp_path: Path) -> None:
    def endless():
        number = 0
        while True:
            yield InputEntry(f"/{number}.jpg")
            number += 1

    assert write_manifest(Store(str(tmp_path)), "r", endless(), limit=7) == 7

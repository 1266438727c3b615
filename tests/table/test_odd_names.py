"""Paths are data: an output with an odd name holds its own rows, each reader finds them, and none of a sibling."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlcls_ray import schema
from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.explore.diff import find_differences
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import uri_of_path
from mlcls_ray.table import layout
from mlcls_ray.table.compact import compact
from mlcls_ray.table.incremental import open_changes
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.publish import check_format, publish
from mlcls_ray.table.verify import verify
from tests.odd_names import NOT_UTF8, ODD_NAMES
from tests.s3_servers import BUCKET
from tests.table.outputs import INPUTS, URIS, write_run

ALL = "SELECT DISTINCT run_id FROM all_rows ORDER BY 1"


def check_output(root: str, s3: S3Options) -> None:
    store = Store(root, s3)
    write_run(store, "a")
    write_run(store, "b")
    assert store.names(layout.RUNS) == ["a", "b"]
    assert verify(store) == []
    table = open_labels(root, s3)
    assert table.sql(ALL).fetchall() == [("a",), ("b",)]
    assert table.arrow().schema.names == schema.LABEL_TABLE.names, "no column is made of a folder's name"
    with open_changes(store, ("m", "p"), INPUTS, [InputEntry("/new.jpg")]) as changes:
        assert [entry.uri for entry in changes.new()] == ["/new.jpg"]
    path, filesystem = store.data_path(layout.manifest_folder("a"))
    assert pq.read_table(path, filesystem=filesystem).column("uri").to_pylist() == list(URIS)
    assert len(compact(store, "a").fragments) == 1
    assert verify(store) == []
    assert open_labels(root, s3).sql(ALL).fetchall() == [("a",), ("b",)]


@pytest.mark.parametrize("name", [*ODD_NAMES, NOT_UTF8])
def test_a_local_output(tmp_path: Path, name: str) -> None:
    for sibling in ("axb", "x", "ab"):
        write_run(Store(str(tmp_path / sibling)), "sibling")
    check_output(uri_of_path(tmp_path / name), S3Options())


@pytest.mark.parametrize(
    "name", ["[x]", pytest.param("a*b", marks=pytest.mark.slow), pytest.param("a?b", marks=pytest.mark.slow)]
)
def test_a_remote_output(s3_slowly: str, name: str) -> None:
    base, s3 = f"s3://{BUCKET}/{uuid.uuid4().hex}", S3Options(endpoint_url=s3_slowly)
    for sibling in ("axb", "x"):
        write_run(Store(f"{base}/{sibling}", s3), "sibling")
    check_output(f"{base}/{name}", s3)
    differences = find_differences(open_labels(f"{base}/{name}", s3), open_labels(f"{base}/x", s3))
    assert differences.images == len(URIS)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_other_formats_write_into_the_output_or_refuse(tmp_path: Path, name: str) -> None:
    """Their libraries take some names for others, and would write beside the output."""
    store = Store(str(tmp_path / name))
    write_run(store, "a")
    for kind in ("delta", "lance", "iceberg"):
        try:
            check_format(kind, store.root)
        except UsageError as error:
            assert "its library misreads" in str(error)
            assert any(character in name for character in "?#[]%\\\n")
            continue
        assert publish(store, kind) == ["a"]
        assert kind in store.names("")
    assert [path.name for path in tmp_path.iterdir()] == [name]

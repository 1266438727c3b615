"""Other table formats: one commit per run, none twice, read back by the format's own reader; incremental runs work as before."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.field_types import TableFormat
from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.formats.base import RunRows
from mlcls_ray.table.publish import check_format, open_table, publish, published_schema
from mlcls_ray.table.verify import verify
from tests.conftest import encode, picture, quick_job, run_cli, run_installed
from tests.s3_servers import BUCKET

pytestmark = pytest.mark.usefixtures("loopback_ray")


def read_delta(out: str) -> pa.Table:
    from deltalake import DeltaTable

    return pa.table(DeltaTable(f"{out}/delta").to_pyarrow_table())


def read_iceberg(out: str) -> pa.Table:
    from pyiceberg.catalog import load_catalog

    catalog = load_catalog("mlcls", type="sql", uri=f"sqlite:///{out}/iceberg/catalog.db")
    return catalog.load_table(("mlcls", "labels")).scan().to_arrow()


def read_lance(out: str) -> pa.Table:
    import lance

    return lance.dataset(f"{out}/lance").to_table()


READERS: dict[TableFormat, Callable[[str], pa.Table]] = {
    "delta": read_delta,
    "iceberg": read_iceberg,
    "lance": read_lance,
}


def commits(out: str, kind: TableFormat) -> int:
    if kind == "delta":
        from deltalake import DeltaTable

        return DeltaTable(f"{out}/delta").version() + 1
    if kind == "lance":
        import lance

        return len(lance.dataset(f"{out}/lance").versions())
    from pyiceberg.catalog import load_catalog

    catalog = load_catalog("mlcls", type="sql", uri=f"sqlite:///{out}/iceberg/catalog.db")
    return len(catalog.load_table(("mlcls", "labels")).metadata.metadata_log)


KINDS = ["delta", pytest.param("iceberg", marks=pytest.mark.slow), pytest.param("lance", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", KINDS)
def test_nights(kind: TableFormat, tiny_folder: Path, folder_of_images: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", str(tmp_path / "out")
    images.mkdir()
    inputs = (str(images), str(folder_of_images))
    job = quick_job(
        inputs=inputs,
        out=out,
        model=str(tiny_folder),
        incremental=True,
        format=kind,
        rows_per_fragment=10,
        batch_size=4,
    )
    (images / "a.jpg").write_bytes(encode(picture()))
    label(job.model_copy(update={"run_id": "first"}))
    first = READERS[kind](out)
    fragments = pq.read_table(f"{out}/{layout.labels_folder('first')}").sort_by("row_id")
    found = first.sort_by("row_id").select(fragments.schema.names)
    assert found.num_rows == 31
    for name in fragments.schema.names:
        if name == "all_scores":
            for one, other in zip(found[name].to_pylist(), fragments[name].to_pylist(), strict=True):
                assert one == (None if other is None else [pytest.approx(float(score)) for score in other])
        else:
            assert found[name].to_pylist() == fragments[name].to_pylist(), name
    after_one = commits(out, kind)
    label(job.model_copy(update={"run_id": "first"}))  # committed already
    assert commits(out, kind) == after_one
    assert not label(job.model_copy(update={"run_id": "second"})).is_new
    assert commits(out, kind) == after_one, "nothing new is no commit"
    (images / "b.jpg").write_bytes(encode(picture(seed=2)))
    label(job.model_copy(update={"run_id": "third"}))
    rows = READERS[kind](out)
    assert sorted(set(rows["run_id"].to_pylist())) == ["first", "third"]
    assert rows.num_rows == 32
    assert commits(out, kind) > after_one
    assert verify(Store(out)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_driver_that_died_before_the_table(kind: TableFormat, tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    """The run is committed and the table lacks it: the same command, another run, or `mlcls publish` adds it; once."""
    out = str(tmp_path / "out")
    job = quick_job(inputs=(str(demo / "cat.jpg"),), out=out, model=str(tiny_folder), run_id="one")
    label(job)  # and here the driver dies

    fragment = pq.read_table(f"{out}/{layout.labels_folder('one')}")
    rows = fragment.cast(published_schema(fragment.schema))

    def torn() -> Iterator[pa.RecordBatch]:
        yield from rows.to_batches()
        raise OSError("the driver died")

    store = Store(out)
    with pytest.raises(Exception, match="the driver died"):
        open_table(store, kind).append(RunRows("one", rows.schema, torn()))
    assert not open_table(store, kind).has("one"), "or in the middle of the table's commit"
    label(job.model_copy(update={"run_id": "two"}))
    assert run_cli("publish", out, "--format", kind).stdout.splitlines()[:2] == ["one", "two"]
    assert "0 run(s) added" in run_cli("publish", out, "--format", kind).stdout
    assert sorted(READERS[kind](out)["run_id"].to_pylist()) == ["one", "two"]


def test_two_models_in_one_table(tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    """3 and 80 classes: lists of both lengths."""
    out = str(tmp_path / "out")
    for model in (str(tiny_folder), "starter"):
        label(quick_job(inputs=(str(demo / "cat.jpg"),), out=out, model=model))
    for kind, read in READERS.items():
        assert len(publish(Store(out), kind)) == 2
        assert sorted(len(one) for one in read(out)["all_scores"].to_pylist()) == [3, 80]


@pytest.mark.slow
def test_in_a_bucket(s3_endpoint: str, tiny_folder: Path, demo: Path) -> None:
    out, s3 = f"s3://{BUCKET}/{uuid.uuid4().hex}", S3Options(endpoint_url=s3_endpoint, region="eu-west-1")
    words = ("label", demo / "cat.jpg", "--out", out, "--model", tiny_folder, "--run-id", "one")
    run_installed(*words, env={"AWS_ENDPOINT_URL": s3_endpoint})
    store = Store(out, s3)
    for kind in ("delta", "lance"):
        assert publish(store, kind) == ["one"]
        assert open_table(store, kind).has("one")
        assert publish(store, kind) == []
    with pytest.raises(UsageError, match="needs a catalog that all readers reach"):
        publish(store, "iceberg")


def test_a_missing_package_is_named_before_anything_starts(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)  # how Python marks a module that cannot be imported
    monkeypatch.delitem(sys.modules, "mlcls_ray.table.formats.delta", raising=False)
    with pytest.raises(UsageError, match=r"format delta needs the extra 'delta': pip install 'mlcls-ray\[delta\]'"):
        label(quick_job(inputs=(str(demo),), out=str(tmp_path / "out"), format="delta"))
    assert not (tmp_path / "out").exists()
    check_format("parquet", "/a?b")

"""The whole job over each kind of store: images in, table and annotated images out, resumed, retried by night, compacted, verified."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.compact import compact
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.verify import verify
from tests.conftest import encode, picture, quick_job
from tests.s3_servers import BUCKET

ODD = (
    "a/1.jpg",
    "a/2 %20#.jpg",
    "b/ü.jpg",
    "b/it's+1&2=3;@,$.jpg",
    'c/"q" (1) [x]{y}.jpg',
    "c/😀 猫.jpg",
    f"d/{'n' * 200}.jpg",
    "e/?w=1.jpg",
)


class Place(NamedTuple):
    """Where a test's files are."""

    root: str
    s3: S3Options


@pytest.fixture(
    params=[pytest.param("local", marks=pytest.mark.slow), pytest.param("moto", marks=pytest.mark.slow), "juicefs"]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place(str(tmp_path), S3Options())
    endpoint = request.getfixturevalue(request.param)
    return Place(f"s3://{BUCKET}/{uuid.uuid4().hex}", S3Options(endpoint_url=endpoint))


def test_from_images_to_a_verified_table(place: Place, tiny_folder: Path, loopback_ray: None) -> None:
    given = Store(place.root, place.s3)
    for number, name in enumerate(ODD):
        given.write(f"photos/{name}", encode(picture(seed=number)))
    given.write("photos/bad.jpg", b"<html>")
    given.write("photos/readme.md", b"not taken")
    job = quick_job(
        inputs=(f"{place.root}/photos",), out=f"{place.root}/out", model=str(tiny_folder), run_id="r", annotate="all",
        rows_per_fragment=4, block_rows=4, batch_size=4, s3=place.s3,
    )  # fmt: skip
    success = label(job)
    assert success.statuses == {"ok": len(ODD), "not_an_image": 1}
    store = Store(job.out, job.s3)
    assert verify(store) == []
    assert len(store.names(layout.annotated_folder("r"))) == len(ODD)
    path, filesystem = store.data_path(layout.labels_folder("r"))
    table = pq.read_table(path, filesystem=filesystem)
    assert sorted(table.column("uri").to_pylist()) == sorted(
        f"{place.root}/photos/{name}" for name in (*ODD, "bad.jpg")
    )
    assert table.column("mtime").null_count == 0

    # the commit is lost, and one fragment: the same command makes up for both
    store.remove(layout.success("r"))
    fragment, *others = store.names(layout.labels_folder("r"))
    assert others
    store.remove(f"{layout.labels_folder('r')}/{fragment}")
    again = label(job)
    assert again.rows == len(ODD) + 1
    assert verify(store) == []
    assert set(store.names(layout.labels_folder("r"))) > set(others)

    assert len(compact(store, "r").fragments) == 1
    assert verify(store) == []
    assert len(open_labels(job.out, job.s3).arrow()) == len(ODD) + 1
    assert label(job.model_copy(update={"run_id": None, "incremental": True, "annotate": "none"})).rows == 0

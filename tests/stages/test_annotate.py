"""The annotate stage: one file per image that has bytes and labels; the rows pass unchanged."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
from PIL import Image

from mlcls_ray.images.draw import annotated_name
from mlcls_ray.stages.annotate import AnnotateImages
from mlcls_ray.storage.store import Store
from tests.conftest import encode, picture


def test_files_and_rows(tmp_path: Path) -> None:
    data = encode(picture(200, 150))
    rows = pa.table(
        {
            "uri": ["/a/x.jpg", "/b/x.jpg", "/skipped.jpg", "/engine-error.jpg"],
            "labels": [["cat"], [], ["dog"], None],
            "class_ids": pa.array([[0], [], [1], None], pa.list_(pa.int16())),
            "scores": pa.array([[0.9], [], [0.8], None], pa.list_(pa.float32())),
            "image_bytes": pa.array([data, data, b"", data], pa.large_binary()),
        }
    )
    stage = AnnotateImages(Store(str(tmp_path)), "annotated", 10**6, threads=2)
    left = stage(rows)
    assert left.equals(rows.drop_columns(["image_bytes"]))
    assert sorted(path.name for path in (tmp_path / "annotated").iterdir()) == sorted(
        [annotated_name("/a/x.jpg"), annotated_name("/b/x.jpg")]
    )
    for path in (tmp_path / "annotated").iterdir():
        assert Image.open(io.BytesIO(path.read_bytes())).width == 200

"""The annotate stage: one file per image that has bytes and labels; the rows pass unchanged."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
from PIL import Image

from mlcls_ray.images.draw import annotated_name
from mlcls_ray.stages.annotate import Annotate
from mlcls_ray.stages.spec import model_column, model_rows
from tests.conftest import encode, picture
from tests.stages.specs import model_spec, run_spec


def test_files_and_rows(tmp_path: Path) -> None:
    data = encode(picture(200, 150))
    rows = pa.table(
        {
            "uri": ["/a/x.jpg", "/b/x.jpg", "/skipped.jpg", "/engine-error.jpg"],
            "labels": [["cat"], [], ["dog"], None],
            "class_ids": pa.array([[0], [], [1], None], pa.list_(pa.int16())),
            "scores": pa.array([[0.9], [], [0.8], None], pa.list_(pa.float32())),
        }
    )
    struct = pa.StructArray.from_arrays([column.combine_chunks() for column in rows.columns], fields=list(rows.schema))
    image_bytes = pa.array([data, data, b"", data], pa.large_binary())
    stage = Annotate(run_spec(model_spec(out=str(tmp_path))))
    left = stage(pa.table({model_column("m"): struct, "image_bytes": image_bytes}))
    assert left.column_names == [model_column("m")]
    assert model_rows(left, "m").equals(rows)
    assert sorted(path.name for path in (tmp_path / "annotated").iterdir()) == sorted(
        [annotated_name("/a/x.jpg"), annotated_name("/b/x.jpg")]
    )
    for path in (tmp_path / "annotated").iterdir():
        assert Image.open(io.BytesIO(path.read_bytes())).width == 200


def test_an_image_that_cannot_be_drawn_has_no_file_and_keeps_its_row(tmp_path: Path) -> None:
    columns = {
        "uri": ["/broken.jpg", "/good.jpg"],
        "labels": [["cat"], ["cat"]],
        "class_ids": pa.array([[0], [0]], pa.list_(pa.int16())),
        "scores": pa.array([[0.9], [0.9]], pa.list_(pa.float32())),
    }
    rows = pa.table(columns)
    struct = pa.StructArray.from_arrays([column.combine_chunks() for column in rows.columns], fields=list(rows.schema))
    image_bytes = pa.array([b"no image", encode(picture())], pa.large_binary())
    left = Annotate(run_spec(model_spec(out=str(tmp_path))))(
        pa.table({model_column("m"): struct, "image_bytes": image_bytes})
    )
    assert model_rows(left, "m").equals(rows)
    assert [path.name for path in (tmp_path / "annotated").iterdir()] == [annotated_name("/good.jpg")]

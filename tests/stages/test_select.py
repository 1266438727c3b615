"""Rows of the label table: the schema, nulls where nothing is known, the scores that are kept."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlcls_ray import schema
from mlcls_ray.stages.select import Provenance, SelectLabels

PROVENANCE = Provenance("m", "f", "p", "paddle", "fp32", "0.5", "run")
VOCABULARY = ("cat", "dog", "猫")


def stage(**changes: object) -> SelectLabels:
    values = {
        "vocabulary": VOCABULARY,
        "thresholds": np.full(3, 0.5, np.float32),
        "provenance": PROVENANCE,
        "all_scores": "all",
        "top_k": 1,
    }
    return SelectLabels(**{**values, **changes})  # type: ignore[arg-type]


def batch() -> dict[str, np.ndarray]:
    """An image with two labels, one with none, an error about which nothing is known."""

    def objects(*values: object) -> np.ndarray:
        return np.array(values, dtype=object)

    return {
        "row_id": np.array([7, 8, 9]), "uri": objects("/a", "/b", "/c"), "status": objects("ok", "ok", "missing"),
        "error_message": objects("", "", "gone"), "attempts": np.array([1, 1, 2], np.int16), "width": np.array([4, 5, -1], np.int32),
        "height": np.array([6, 7, -1], np.int32), "format": objects("jpeg", "png", ""),
        "size_bytes": np.array([10, 11, -1]), "mtime": np.array(["2026-01-02T03:04:05", "NaT", "NaT"], "datetime64[us]"),
        "etag": objects("e", "", ""), "content_hash": objects("h1", "h2", ""), "image_bytes": objects(b"1", b"", b""),
        "all_scores": np.array([[0.6, 0.1, 0.9], [0.1, 0.2, 0.3], [0, 0, 0]], np.float32),
    }  # fmt: skip


def test_rows() -> None:
    table = stage()(batch())
    assert table.schema.equals(schema.label_table(3))
    first, second, third = table.to_pylist()
    assert (first["labels"], first["class_ids"]) == (["猫", "cat"], [2, 0])
    assert first["scores"] == pytest.approx([0.9, 0.6])
    assert (second["labels"], second["scores"]) == ([], [])
    assert [name for name, value in third.items() if value is None] == [
        "width", "height", "format", "size_bytes", "mtime", "etag", "content_hash", "labels", "class_ids", "scores", "all_scores",
    ]  # fmt: skip
    assert (third["status"], third["error_message"]) == ("missing", "gone")
    assert (first["model"], first["engine"], first["run_id"], first["labeled_at"].tzname()) == (
        "m",
        "paddle",
        "run",
        "UTC",
    )


def test_all_scores_survive_as_float16() -> None:
    table = stage()(batch())
    assert table.column("all_scores").type == pa.list_(pa.float16(), 3)
    assert table.column("all_scores").to_pylist()[0] == pytest.approx([0.6, 0.1, 0.9], abs=5e-4)


def test_top_k_and_none() -> None:
    assert stage(all_scores="top_k")(batch()).column("all_scores").to_pylist() == [
        [None, None, pytest.approx(0.9, abs=5e-4)], [None, None, pytest.approx(0.3, abs=5e-4)], None,
    ]  # fmt: skip
    table = stage(all_scores="none")(batch())
    assert table.column("all_scores").to_pylist() == [None] * 3
    assert table.schema.equals(schema.label_table(3))


def test_only_errors_and_no_rows_keep_the_schema() -> None:
    errors = {name: column[2:] for name, column in batch().items()}
    assert stage()(errors).schema.equals(schema.label_table(3))
    nothing = {name: column[:0] for name, column in batch().items()}
    assert stage()(nothing).num_rows == 0


def test_bytes_travel_on_for_annotation() -> None:
    assert stage(keep_image_bytes=True)(batch()).column("image_bytes").to_pylist() == [b"1", b"", b""]


def test_signatures_do_not_reach_the_table() -> None:
    signed = batch() | {"uri": np.array(["https://h/a.jpg?X-Amz-Signature=s3cret", "/b", "/c"], dtype=object)}
    assert stage()(signed).column("uri").to_pylist() == ["https://h/a.jpg", "/b", "/c"]

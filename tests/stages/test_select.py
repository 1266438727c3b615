"""Rows of the label table: the schema, nulls where nothing is known, the scores that are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlcls_ray import schema
from mlcls_ray.labels.label_map import LabelMap
from mlcls_ray.stages.score import Scores, as_struct
from mlcls_ray.stages.select import Select
from mlcls_ray.stages.spec import model_column, model_rows
from tests.stages.specs import model_spec, run_spec


def selected(batch: dict[str, Any], **job: object) -> pa.Table:
    """The rows of the one model."""
    return model_rows(Select(run_spec(**job))(batch), "m")


def batch() -> dict[str, Any]:
    """An image with two labels, one with none, an error about which nothing is known."""

    def objects(*values: object) -> np.ndarray:
        return np.array(values, dtype=object)

    status, message = objects("ok", "ok", "missing"), objects("", "", "gone")
    scores = np.array([[0.6, 0.1, 0.9], [0.1, 0.2, 0.3], [0, 0, 0]], np.float32)
    return {
        "row_id": np.array([7, 8, 9]), "uri": objects("/a", "/b", "/c"), "status": status, "error_message": message,
        "attempts": np.array([1, 1, 2], np.int16), "width": np.array([4, 5, -1], np.int32),
        "height": np.array([6, 7, -1], np.int32), "format": objects("jpeg", "png", ""),
        "size_bytes": np.array([10, 11, -1]), "mtime": np.array(["2026-01-02T03:04:05", "NaT", "NaT"], "datetime64[us]"),
        "etag": objects("e", "", ""), "content_hash": objects("h1", "h2", ""), "image_bytes": objects(b"1", b"", b""),
        model_column("m"): as_struct(Scores(status, message, scores)),
    }  # fmt: skip


def test_rows() -> None:
    table = selected(batch())
    assert table.schema.equals(schema.LABEL_TABLE)
    first, second, third = table.to_pylist()
    assert (first["labels"], first["class_ids"]) == (["猫", "cat"], [2, 0])
    assert first["scores"] == pytest.approx([0.9, 0.6])
    assert (second["labels"], second["scores"]) == ([], [])
    assert (first["run_number"], first["embedding"]) == (0, None)
    assert [name for name, value in third.items() if value is None] == [
        "width", "height", "format", "size_bytes", "mtime", "etag", "content_hash", "labels", "class_ids", "scores", "all_scores",
        "embedding",
    ]  # fmt: skip
    assert (third["status"], third["error_message"]) == ("missing", "gone")
    assert (first["model"], first["engine"], first["run_id"], first["labeled_at"].tzname()) == (
        "m",
        "paddle",
        "run",
        "UTC",
    )


def test_all_scores_are_rounded_to_float16() -> None:
    scores = selected(batch()).column("all_scores").to_pylist()
    assert scores[0] == [float(np.float16(score)) for score in (0.6, 0.1, 0.9)]
    assert [len(row or []) for row in scores] == [3, 3, 0]


def test_top_k_and_none() -> None:
    assert selected(batch(), all_scores="top_k", top_k=1).column("all_scores").to_pylist() == [
        [None, None, pytest.approx(0.9, abs=5e-4)], [None, None, pytest.approx(0.3, abs=5e-4)], None,
    ]  # fmt: skip
    table = selected(batch(), all_scores="none")
    assert table.column("all_scores").to_pylist() == [None] * 3
    assert table.schema.equals(schema.LABEL_TABLE)


def test_only_errors_and_no_rows_keep_the_schema() -> None:
    errors = {name: column[2:] for name, column in batch().items()}
    assert selected(errors).schema.equals(schema.LABEL_TABLE)
    nothing = {name: column[:0] for name, column in batch().items()}
    assert selected(nothing).num_rows == 0


def test_bytes_travel_on_for_annotation() -> None:
    table = Select(run_spec())(batch())
    assert table.column_names == [model_column("m"), "image_bytes"]
    assert table.column("image_bytes").to_pylist() == [b"1", b"", b""]


def test_each_model_has_rows_of_its_own() -> None:
    """The same scores at another threshold, and what one model's engine refused."""
    columns = batch()
    status = np.array(["ok", "engine", "missing"], dtype=object)
    scores = np.array([[0.6, 0.1, 0.9], [0, 0, 0], [0, 0, 0]], np.float32)
    columns[model_column("n")] = as_struct(Scores(status, np.array(["", "refused", "gone"], dtype=object), scores))
    spec = run_spec(model_spec("m"), model_spec("n", thresholds=np.full(3, 0.7, np.float32)))
    table = Select(spec)(columns)
    assert model_rows(table, "m").column("labels").to_pylist() == [["猫", "cat"], [], None]
    rows = model_rows(table.slice(1), "n")
    assert rows.column("status").to_pylist() == ["engine", "missing"]
    assert rows.column("all_scores").to_pylist() == [None, None]
    assert model_rows(table, "n").column("labels").to_pylist() == [["猫"], None, None]
    assert rows.schema.equals(schema.LABEL_TABLE)


def test_a_label_map() -> None:
    """The scores of all classes are kept: another map can be applied to them later."""
    label_map = LabelMap.model_validate({"cat": "animal", "dog": "animal", "猫": None}).resolve(("cat", "dog", "猫"))
    rows = model_rows(Select(run_spec(model_spec(label_map=label_map)))(batch()), "m")
    assert rows.schema.equals(schema.LABEL_TABLE)
    assert rows.column("labels").to_pylist() == [["animal"], [], None]
    assert rows.column("class_ids").to_pylist() == [[0], [], None]
    assert rows.column("all_scores").to_pylist() == selected(batch()).column("all_scores").to_pylist()


def test_embeddings() -> None:
    columns = batch()
    scores = Scores(
        columns["status"], columns["error_message"], np.zeros((3, 3), np.float32), np.full((3, 2), 0.5, np.float32)
    )
    rows = selected({**columns, model_column("m"): as_struct(scores)})
    assert rows.schema.equals(schema.LABEL_TABLE)
    assert rows.column("embedding").to_pylist() == [[0.5, 0.5], [0.5, 0.5], None]


def test_signatures_do_not_reach_the_table() -> None:
    signed = batch() | {"uri": np.array(["https://h/a.jpg?X-Amz-Signature=s3cret", "/b", "/c"], dtype=object)}
    assert selected(signed).column("uri").to_pylist() == ["https://h/a.jpg", "/b", "/c"]

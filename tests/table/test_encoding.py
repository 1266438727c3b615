"""Scores in the label table: encoded as lists, rounded to float16, and decoded as they were."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlcls_ray import schema

VALUES = np.array([[0.5, 0.25, 1.0], [0.1, 0.2, 0.3], [0.0, np.nan, 0.75]], np.float32)
IS_OK = np.array([True, False, True])


def test_rows_that_are_not_ok_and_scores_that_are_not_kept_are_null() -> None:
    column = schema.encode_scores(VALUES, IS_OK)
    column.validate(full=True)
    assert column.type == schema.LABEL_TABLE.field("all_scores").type
    assert column.to_pylist() == [[0.5, 0.25, 1.0], None, [0.0, None, 0.75]]
    assert len(column.values) == 6, "a row that is not ok takes no room"


@pytest.mark.parametrize("is_ok", [[True] * 3, [False] * 3, [False, True, True], [True, True, False]])
def test_any_row_may_fail(is_ok: list[bool]) -> None:
    column = schema.encode_scores(VALUES, np.array(is_ok))
    column.validate(full=True)
    expected = np.where(np.array(is_ok)[:, None], VALUES.astype(np.float16).astype(np.float32), np.nan)
    np.testing.assert_array_equal(schema.decode_scores(column, 3), expected)


@pytest.mark.parametrize("kind", ["array", "chunked", "sliced", "first layout"])
def test_what_was_encoded_is_decoded(kind: str) -> None:
    column = schema.encode_scores(VALUES, IS_OK)
    expected = np.where(IS_OK[:, None], VALUES, np.nan)
    if kind == "sliced":
        column, expected = column.slice(1), expected[1:]
    elif kind == "chunked":
        column = pa.chunked_array([column.slice(0, 1), column.slice(1)])
    elif kind == "first layout":
        column = pa.array(column.to_pylist(), pa.list_(pa.float16(), 3))
    scores = schema.decode_scores(column, 3)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, expected)


def test_no_rows() -> None:
    kind = schema.LABEL_TABLE.field("all_scores").type
    assert schema.decode_scores(pa.chunked_array([], kind), 3).shape == (0, 3)
    assert len(schema.encode_scores(np.zeros((0, 3), np.float32), np.zeros(0, bool))) == 0


def test_each_column_has_a_meaning() -> None:
    columns = {*schema.LABEL_TABLE.names, *schema.MANIFEST.names, *schema.DUPLICATES.names, *schema.CORRECTIONS.names}
    assert set(schema.MEANINGS) == columns

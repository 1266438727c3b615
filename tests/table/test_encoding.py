"""Scores in the label table: encoded as float16 lists, and decoded as they were."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlcls_ray import schema

VALUES = np.array([[0.5, 0.25, 1.0], [0.1, 0.2, 0.3], [0.0, np.nan, 0.75]], np.float32)
IS_OK = np.array([True, False, True])


def test_rows_that_are_not_ok_and_scores_that_are_not_kept_are_null() -> None:
    column = schema.encode_scores(VALUES, IS_OK)
    assert column.type == schema.label_table(3).field("all_scores").type
    assert column.to_pylist() == [[0.5, 0.25, 1.0], None, [0.0, None, 0.75]]


@pytest.mark.parametrize("kind", ["array", "chunked", "sliced", "read by DuckDB"])
def test_what_was_encoded_is_decoded(kind: str) -> None:
    column = schema.encode_scores(VALUES, IS_OK)
    expected = np.where(IS_OK[:, None], VALUES, np.nan)
    if kind == "sliced":
        column, expected = column.slice(1), expected[1:]
    elif kind == "chunked":
        column = pa.chunked_array([column.slice(0, 1), column.slice(1)])
    elif kind == "read by DuckDB":
        column = column.cast(pa.list_(pa.float32()))
    scores = schema.decode_scores(column, size=3)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, expected)


def test_no_rows() -> None:
    kind = schema.label_table(3).field("all_scores").type
    assert schema.decode_scores(pa.chunked_array([], kind)).shape == (0, 3)


def test_each_column_has_a_meaning() -> None:
    columns = {*schema.label_table(1, embedding_size=1).names, *schema.MANIFEST.names, *schema.DUPLICATES.names}
    assert set(schema.MEANINGS) == columns

"""PaddleClas's list: one parser, one writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.datasets.formats import parse_list, read_dataset, write_list
from mlcls_ray.errors import UsageError


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Relative paths become absolute; soft and unknown targets stay."""
    targets = np.array([[0, 1, 0.7], [np.nan, 0, 1]], np.float32)
    write_list(tmp_path / "train.txt", [tmp_path / "a b.jpg", "/elsewhere/c.jpg"], targets)
    assert (tmp_path / "train.txt").read_text() == f"{tmp_path}/a b.jpg\t0,1,0.7\n/elsewhere/c.jpg\tnan,0,1\n"
    data = read_dataset(tmp_path / "train.txt", 3)
    assert data.paths == [tmp_path / "a b.jpg", Path("/elsewhere/c.jpg")]
    np.testing.assert_array_equal(data.targets, targets)


@pytest.mark.parametrize(
    ("line", "kind", "problem"),
    [
        ("a.jpg 1,0", "format", "no tab between the path and the labels"),
        ("a.jpg\t1,x", "format", "labels are not numbers: 1,x"),
        ("a.jpg\t1,0,1", "vector length", "3 labels for 2 classes"),
        ("a.jpg\t1,2", "format", "a label is neither between 0 and 1 nor nan (unknown)"),
    ],
)
def test_a_wrong_line_has_a_problem(line: str, kind: str, problem: str, tmp_path: Path) -> None:
    first, second = parse_list(f"\nok.jpg\t1,0\n{line}\n", 2)
    assert (first.number, first.image, first.vector.tolist(), first.problem) == (2, "ok.jpg", [1, 0], "")
    assert (second.number, second.problem_kind, second.problem) == (3, kind, problem)
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(UsageError, match="list.txt:1: expected a path, a tab and 2 numbers"):
        read_dataset(tmp_path / "list.txt", 2)

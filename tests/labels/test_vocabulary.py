"""Vocabularies in text files, with and without numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.labels.vocabulary import read_vocabulary


@pytest.mark.parametrize(
    ("text", "expected"),
    [("cat\ndog\n", ("cat", "dog")), ("0 cat\n1 big dog", ("cat", "big dog")), ("7 up\ncat", ("7 up", "cat"))],
)
def test_label_lists(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    path = tmp_path / "label.txt"
    path.write_text(text)
    assert read_vocabulary(path) == expected


@pytest.mark.parametrize(("text", "reason"), [("", "is empty"), ("1 cat\n2 dog", "not 0 to 1 in order")])
def test_wrong_label_lists(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "label.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_vocabulary(path)

"""Labelled images in PaddleClas's multi-label text format: `images/a.jpg<TAB>0,1,0,…`; `labels.vocabulary` reads its `label.txt`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_ray.errors import UsageError


class Dataset(NamedTuple):
    """Image paths, and targets float32 [N, C]: 0/1, or probabilities where they are soft. Maps are those of `local_maps`."""

    paths: list[Path]
    targets: np.ndarray
    maps: np.ndarray | None = None


def read_dataset(list_file: Path, class_num: int) -> Dataset:
    """Read a list file; paths are relative to its folder.

    Raises:
        UsageError: a line that is not a path, a tab and `class_num` numbers.
    """
    paths, targets = [], []
    for number, line in enumerate(list_file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, separator, vector = line.partition("\t")
        try:
            values = [float(value) for value in vector.split(",")]
        except ValueError:
            values = []
        if not separator or len(values) != class_num:
            raise UsageError(f"{list_file}:{number}: expected a path, a tab and {class_num} numbers")
        paths.append(list_file.parent / name)
        targets.append(values)
    return Dataset(paths, np.asarray(targets, dtype=np.float32))


def write_list(path: Path, data: Dataset) -> None:
    """A list file with absolute paths; the numbers as they are, so that 0.7 and nan come back."""
    vectors = (",".join(f"{value:g}" for value in row) for row in data.targets)
    lines = [f"{image.absolute()}\t{vector}\n" for image, vector in zip(data.paths, vectors, strict=True)]
    path.write_text("".join(lines), "utf-8")

"""Labelled images in PaddleClas's multi-label text format: `images/a.jpg<TAB>0,1,0,…`, and `label.txt`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_ray.errors import UsageError


class Dataset(NamedTuple):
    """Image paths, and targets float32 [N, C]: 0/1, or probabilities where they are soft."""

    paths: list[Path]
    targets: np.ndarray


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


def read_vocabulary(label_file: Path) -> tuple[str, ...]:
    """`label.txt`: `<id> <name>` a line, ids from 0 in order.

    Raises:
        UsageError: ids that are not 0, 1, 2, …
    """
    names = []
    for position, line in enumerate(label_file.read_text(encoding="utf-8").splitlines()):
        number, _, name = line.partition(" ")
        if number != str(position) or not name:
            raise UsageError(f"{label_file}:{position + 1}: expected '{position} <name>', found '{line}'")
        names.append(name)
    return tuple(names)

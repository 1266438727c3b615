"""Labelled images in PaddleClas's multi-label text format: `images/a.jpg<TAB>0,1,0,…`; `labels.vocabulary` reads its `label.txt`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_ray.errors import UsageError
from mlcls_ray.labels.vocabulary import read_vocabulary, write_vocabulary
from mlcls_ray.training.stratify import split_rows


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


def split_dataset(list_file: Path, out: Path, dev: float, test: float, seed: int) -> dict[str, int]:
    """Write train.txt, dev.txt (and test.txt) and label.txt into a folder; returns the images of each.

    Raises:
        UsageError: shares that leave nothing for training, lists that are there already, or a list that cannot be read.
    """
    shares = {"train": 1 - dev - test, "dev": dev, "test": test}
    if min(dev, test) < 0 or shares["train"] <= 0:
        raise UsageError(f"--dev {dev:g} and --test {test:g} leave {shares['train']:g} for training")
    shares = {name: share for name, share in shares.items() if share > 0}
    there = [name for name in shares if (out / f"{name}.txt").exists()]
    if there:
        raise UsageError(f"'{out}' has {', '.join(f'{name}.txt' for name in there)} already: give another --out")
    classes = read_vocabulary(list_file.parent / "label.txt")
    data = read_dataset(list_file, len(classes))
    out.mkdir(parents=True, exist_ok=True)
    write_vocabulary(out / "label.txt", classes)
    parts = split_rows(data.targets > 0.5, list(shares.values()), seed)
    for name, rows in zip(shares, parts, strict=True):
        lines = [
            f"{data.paths[row].absolute()}\t{','.join(f'{value:g}' for value in data.targets[row])}\n" for row in rows
        ]
        (out / f"{name}.txt").write_text("".join(lines), "utf-8")
    return {name: len(rows) for name, rows in zip(shares, parts, strict=True)}

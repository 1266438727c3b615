"""A data set's folder: its classes and its splits, in any of the formats that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlcls_ray.datasets.formats import Dataset, read_dataset, write_list
from mlcls_ray.datasets.ground_truth import LABEL_LIST, class_names, read_truth
from mlcls_ray.datasets.stratify import split_rows
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.vocabulary import read_vocabulary, write_vocabulary
from mlcls_ray.storage.uris import is_local, path_of_uri

SUFFIXES = (".txt", ".json", ".csv", ".parquet")
"""PaddleClas's list, COCO instances, and tables with the columns `uri` and `labels`."""


def find_split(folder: Path, name: str) -> Path | None:
    """The file of a split, such as train.txt or train.json; the first of `SUFFIXES` that is there."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def read_classes(folder: Path, train: Path) -> tuple[str, ...]:
    """The class names: of label.txt, else those that the training split names (COCO: in the order of their ids, others: sorted).

    Raises:
        UsageError: there is no label.txt beside a list that has no names, or it cannot be read.
    """
    listed = folder / LABEL_LIST
    if listed.is_file() or train.suffix == ".txt":
        return read_vocabulary(listed)
    return class_names(train)


def read_split(path: Path, classes: tuple[str, ...]) -> Dataset:
    """One split; the targets of a list may be soft, or NaN where they are not known.

    Raises:
        UsageError: it cannot be read, names no image, an unknown class, or an image that is not on this machine.
    """
    if path.suffix == ".txt":
        try:
            data = read_dataset(path, len(classes))
        except OSError as error:
            raise UsageError(f"'{path}' cannot be read: {error.strerror}") from None
    else:
        truth = read_truth(path, classes)
        remote = next((uri for uri in truth.uris if not is_local(uri)), None)
        if remote:
            raise UsageError(f"'{path}' names '{remote}': training reads images of this machine only")
        data = Dataset([Path(path_of_uri(uri)) for uri in truth.uris], truth.targets.astype(np.float32))
    if not data.paths:
        raise UsageError(f"'{path}' names no image")
    return data


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
    classes = read_classes(list_file.parent, list_file)
    data = read_split(list_file, classes)
    out.mkdir(parents=True, exist_ok=True)
    write_vocabulary(out / LABEL_LIST, classes)
    parts = split_rows(data.targets > 0.5, list(shares.values()), seed)
    for name, rows in zip(shares, parts, strict=True):
        write_list(out / f"{name}.txt", Dataset([data.paths[row] for row in rows], data.targets[rows]))
    return {name: len(rows) for name, rows in zip(shares, parts, strict=True)}

"""A data set's folder: its classes and its splits, in any of the formats; and how to split one list into several."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlcls_ray.datasets.formats import LIST_SUFFIX, SUFFIXES, Dataset, read_dataset, write_list
from mlcls_ray.datasets.ground_truth import LABEL_LIST, class_names, read_truth
from mlcls_ray.datasets.stratify import split_rows
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.vocabulary import read_vocabulary, write_vocabulary
from mlcls_ray.storage.store import check_new_target
from mlcls_ray.storage.uris import is_local, path_of_uri


def find_split(folder: Path, name: str) -> Path | None:
    """Find the file of a split, such as train.txt or train.json; the first of `SUFFIXES` that exists."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def read_classes(folder: Path, train: Path) -> tuple[str, ...]:
    """Read the class names from label.txt, or without it from the training split (COCO: in the order of ids, others: sorted).

    Raises:
        UsageError: the file cannot be read, or a PaddleClas list has no label.txt beside it.
    """
    label_list = folder / LABEL_LIST
    if label_list.is_file() or train.suffix == LIST_SUFFIX:
        return read_vocabulary(label_list)
    return class_names(train)


def read_split(path: Path, classes: tuple[str, ...]) -> Dataset:
    """Read one split. The targets of a PaddleClas list may be soft, or NaN where they are unknown.

    Raises:
        UsageError: it cannot be read, names no image, an unknown class, or an image that is not on this machine.
    """
    if path.suffix == LIST_SUFFIX:
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
    """Write train.txt, dev.txt, test.txt and label.txt into a folder. Return the number of images in each split.

    Raises:
        UsageError: `dev` and `test` leave no images for training, a list exists already, or the list cannot be read.
    """
    shares = {"train": 1 - dev - test, "dev": dev, "test": test}
    if min(dev, test) < 0 or shares["train"] <= 0:
        raise UsageError(f"--dev {dev:g} and --test {test:g} leave {shares['train']:g} for training")
    shares = {name: share for name, share in shares.items() if share > 0}
    targets = {name: new_list(out, name) for name in shares}
    classes = read_classes(list_file.parent, list_file)
    data = read_split(list_file, classes)
    out.mkdir(parents=True, exist_ok=True)
    write_vocabulary(out / LABEL_LIST, classes)
    parts = split_rows(data.targets > 0.5, list(shares.values()), seed)
    for path, rows in zip(targets.values(), parts, strict=True):
        write_list(path, [data.paths[row] for row in rows], data.targets[rows])
    return {name: len(rows) for name, rows in zip(shares, parts, strict=True)}


def new_list(folder: Path, split: str) -> Path:
    """Return the path of a split's list that does not exist yet.

    Raises:
        UsageError: it exists.
    """
    path = folder / f"{split}{LIST_SUFFIX}"
    check_new_target(path, "--out")
    return path

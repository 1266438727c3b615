"""True labels of images by uri, as the label table has them, for the classes of a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlcls_ray.datasets.formats import LIST_SUFFIX, SUFFIXES, read_dataset, read_named_labels
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.labels.vocabulary import read_vocabulary
from mlcls_ray.storage.uris import is_local, uri_of_path

if TYPE_CHECKING:
    from mlcls_ray.table.label_table import LabelTable

LABEL_LIST = "label.txt"
COCO_SUFFIX = ".json"


class Truth(NamedTuple):
    """`targets`: bool [N, C], for `uris` [N] and the class names of a vocabulary [C]."""

    uris: list[str]
    targets: np.ndarray
    covered: np.ndarray
    """bool [C]: the classes that the truth knows. Of another class it cannot say that an image does not show it."""
    is_listed: bool
    """True if the truth names its classes. If not, it is taken to know all of the vocabulary."""


def read_truth(path: Path, vocabulary: Sequence[str]) -> Truth:
    """Read true labels for the classes of `vocabulary`; relative paths are relative to the file.

    `.txt`: PaddleClas's multi-label list (path, tab, 0/1 for each class). `label.txt` beside it names its classes; without `label.txt` they
    are those of the vocabulary.
    `.json`: COCO instances; its categories are the classes. `.csv`, `.parquet`: columns `uri` and `labels` (names, in a CSV separated by
    `;`); `label.txt` beside them names the classes.

    Raises:
        UsageError: the file cannot be read, or names a class that the vocabulary does not have.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"data '{path}': expected a file that ends in {', '.join(SUFFIXES)}")
    truth = _truth_of_list(path, vocabulary) if suffix == LIST_SUFFIX else _truth_of_names(path, vocabulary)
    if not truth.uris:
        raise UsageError(f"data '{path}' names no image")
    return truth


def truth_of_corrections(table: LabelTable, vocabulary: Sequence[str]) -> Truth:
    """Take what people said in `mlcls browse` as the truth: the accepted and corrected images, not those that they are unsure of.

    Raises:
        UsageError: the table was opened without corrections, or nobody has corrected an image that is in it.
    """
    if table.corrections is None or not (rows := _corrected_images(table)):
        raise UsageError("nobody has accepted or corrected an image: do so in `mlcls browse OUT`, or give --data")
    targets = np.zeros((len(rows), len(vocabulary)), bool)
    places = {name: place for place, name in enumerate(vocabulary)}
    for row, (_, labels) in enumerate(rows):
        targets[row, [places[label] for label in labels if label in places]] = True
    return Truth([uri for uri, _ in rows], targets, np.ones(len(vocabulary), bool), is_listed=True)


def _corrected_images(table: LabelTable) -> list[tuple[str, list[str]]]:
    """List the uris and labels of the images that a person accepted or corrected."""
    return table.sql("SELECT uri, labels.labels FROM labels WHERE verdict = 'labeled' ORDER BY uri").fetchall()


def class_names(path: Path) -> tuple[str, ...]:
    """Return the classes that a COCO, CSV or Parquet file names: COCO's in the order of their ids, others sorted.

    Raises:
        UsageError: the file cannot be read, or names no class.
    """
    classes = read_named_labels(path).classes
    if not classes:
        raise UsageError(f"data '{path}' names no class")
    return tuple(classes)


def _truth_of_list(path: Path, vocabulary: Sequence[str]) -> Truth:
    names = _listed_classes(path)
    known = tuple(vocabulary) if names is None else names
    try:
        data = read_dataset(path, len(known))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"data '{path}' cannot be read: {error}") from None
    class_ids = _class_ids(known, vocabulary, f"label list '{path.parent / LABEL_LIST}'")
    targets = np.zeros((len(data.paths), len(vocabulary)), bool)
    targets[:, [class_ids[name] for name in known]] = data.targets > 0.5
    uris = [uri_of_path(image) for image in data.paths]
    return Truth(uris, targets, _covered(known, vocabulary), names is not None)


def _truth_of_names(path: Path, vocabulary: Sequence[str]) -> Truth:
    named = read_named_labels(path)
    names_in_file = dict.fromkeys(name for names in named.labels for name in names)
    class_ids = _class_ids(names_in_file, vocabulary, f"data '{path}'")
    listed = tuple(named.classes) if path.suffix.lower() == COCO_SUFFIX else _listed_classes(path)
    targets = np.zeros((len(named.images), len(vocabulary)), bool)
    for row, names in enumerate(named.labels):
        targets[row, [class_ids[name] for name in names]] = True
    known = vocabulary if listed is None else {*listed, *names_in_file}
    return Truth(
        [_uri(image, path) for image in named.images], targets, _covered(known, vocabulary), listed is not None
    )


def _listed_classes(path: Path) -> tuple[str, ...] | None:
    """Return the classes that label.txt beside a file names; None without it."""
    label_list = path.parent / LABEL_LIST
    return read_vocabulary(label_list) if label_list.is_file() else None


def _covered(known: Iterable[str], vocabulary: Sequence[str]) -> np.ndarray:
    names = set(known)
    return np.array([name in names for name in vocabulary], bool)


def _uri(image: str, path: Path) -> str:
    """Make a uri as the label table has it. COCO keeps images in a folder `images` beside the annotations, or right beside them."""
    if not is_local(image) or image.startswith("file://"):
        return image
    folder = path.parent
    in_images = folder / "images" / image
    return uri_of_path(
        in_images if in_images.is_file() and not (folder / image).is_file() else os.path.join(folder, image)
    )


def _class_ids(names: Iterable[str], vocabulary: Sequence[str], source: str) -> dict[str, int]:
    """Map class names to their places in the vocabulary; `source` is for the message about an unknown one."""
    places = {name: class_id for class_id, name in enumerate(vocabulary)}
    for name in names:
        if name not in places:
            raise UsageError(f"{source}: unknown class '{name}'{suggest(name, vocabulary)}")
    return places

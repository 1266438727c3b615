"""True labels of images, in the formats that people have: PaddleClas lists, COCO instances, CSV, Parquet; by uri, as in the label table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.labels.vocabulary import read_vocabulary
from mlcls_ray.storage.uris import is_local, uri_of_path

LABEL_LIST = "label.txt"


class Truth(NamedTuple):
    """`targets`: bool [N, C], for `uris` [N] and the class names of a vocabulary [C]."""

    uris: list[str]
    targets: np.ndarray


def read_truth(path: Path, vocabulary: Sequence[str]) -> Truth:
    """True labels for the classes of `vocabulary`; relative paths are relative to the file.

    `.txt`: PaddleClas's multi-label list (path, tab, 0/1 for each class), with its classes in `label.txt` beside it, else the vocabulary's.
    `.json`: COCO instances. `.csv`, `.parquet`: columns `uri` and `labels` (names, in a CSV separated by `;`).

    Raises:
        UsageError: it cannot be read, or names a class that the vocabulary does not have.
    """
    readers = {".txt": _paddleclas, ".json": _coco, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"data '{path}': write {', '.join(readers)}")
    try:
        truth = reader(path, vocabulary)
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid, csv.Error) as error:
        raise UsageError(f"data '{path}' cannot be read: {error}") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"data '{path}' is not what its suffix says: {type(error).__name__}: {error}") from None
    if not truth.uris:
        raise UsageError(f"data '{path}' names no image")
    return truth


def class_names(path: Path) -> tuple[str, ...]:
    """The classes that a COCO, CSV or Parquet file names: COCO's in the order of their ids, others sorted.

    Raises:
        UsageError: it cannot be read, or names none.
    """
    try:
        if path.suffix.lower() == ".json":
            categories = json.loads(path.read_text("utf-8"))["categories"]
            names = [str(one["name"]) for one in sorted(categories, key=lambda one: one["id"])]
        else:
            labels = _csv_rows(path) if path.suffix.lower() == ".csv" else _parquet_rows(path)
            names = sorted({name for _, given in labels for name in given})
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid, csv.Error, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"data '{path}' cannot be read: {type(error).__name__}: {error}") from None
    if not names:
        raise UsageError(f"data '{path}' names no class")
    return tuple(names)


def _paddleclas(path: Path, vocabulary: Sequence[str]) -> Truth:
    listed = path.parent / LABEL_LIST
    names = read_vocabulary(listed) if listed.is_file() else tuple(vocabulary)
    data = read_dataset(path, len(names))
    places = _places(names, vocabulary, str(listed))
    targets = np.zeros((len(data.paths), len(vocabulary)), bool)
    targets[:, places] = data.targets > 0.5
    return Truth([uri_of_path(one) for one in data.paths], targets)


def _coco(path: Path, vocabulary: Sequence[str]) -> Truth:
    told = json.loads(path.read_text("utf-8"))
    names = {one["id"]: str(one["name"]) for one in told["categories"]}
    labels: dict[int, set[str]] = {one["id"]: set() for one in told["images"]}
    for one in told["annotations"]:
        labels[one["image_id"]].add(names[one["category_id"]])
    uris = [_uri(str(one["file_name"]), path) for one in told["images"]]
    return _from_names(uris, (labels[one["id"]] for one in told["images"]), vocabulary, path)


def _csv(path: Path, vocabulary: Sequence[str]) -> Truth:
    rows = _csv_rows(path)
    return _from_names([_uri(uri, path) for uri, _ in rows], (labels for _, labels in rows), vocabulary, path)


def _csv_rows(path: Path) -> list[tuple[str, Sequence[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [(row["uri"], [one for one in row["labels"].split(";") if one]) for row in csv.DictReader(stream)]


def _parquet(path: Path, vocabulary: Sequence[str]) -> Truth:
    rows = _parquet_rows(path)
    return _from_names([_uri(uri, path) for uri, _ in rows], (labels for _, labels in rows), vocabulary, path)


def _parquet_rows(path: Path) -> list[tuple[str, Sequence[str]]]:
    rows = pq.read_table(path, columns=["uri", "labels"]).to_pydict()
    return [(uri, labels or ()) for uri, labels in zip(rows["uri"], rows["labels"], strict=True)]


def _uri(text: str, path: Path) -> str:
    """As the label table has it; COCO keeps its images in a folder `images` beside the annotations, or right beside them."""
    if not is_local(text) or text.startswith("file://"):
        return text
    folder = path.parent
    in_images = folder / "images" / text
    return uri_of_path(
        in_images if in_images.is_file() and not (folder / text).is_file() else os.path.join(folder, text)
    )


def _from_names(uris: list[str], labels: Iterable[Iterable[str]], vocabulary: Sequence[str], path: Path) -> Truth:
    positions = {name: place for place, name in enumerate(vocabulary)}
    targets = np.zeros((len(uris), len(vocabulary)), bool)
    for row, names in enumerate(labels):
        for name in names:
            if name not in positions:
                raise UsageError(f"data '{path}': unknown class '{name}'{suggest(name, vocabulary)}")
            targets[row, positions[name]] = True
    return Truth(uris, targets)


def _places(names: Sequence[str], vocabulary: Sequence[str], where: str) -> list[int]:
    positions = {name: place for place, name in enumerate(vocabulary)}
    for name in names:
        if name not in positions:
            raise UsageError(f"label list '{where}': unknown class '{name}'{suggest(name, vocabulary)}")
    return [positions[name] for name in names]

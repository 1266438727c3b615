"""Formats of labeled images, one reader each: PaddleClas's multi-label list, COCO instances, CSV and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.errors import UsageError
from mlcls_ray.table.export import paddleclas
from mlcls_ray.table.export.csv import without_guard


class Dataset(NamedTuple):
    """Image files, targets float32 [N, C], and optionally score maps as `train.local_maps` reads them.

    A target is 0 or 1, a probability (a soft target), or NaN where it is unknown.
    """

    paths: list[Path]
    targets: np.ndarray
    maps: np.ndarray | None = None


class ListLine(NamedTuple):
    """A line of a PaddleClas list: `image<TAB>0,1,0,…`."""

    number: int
    image: str
    vector: np.ndarray
    """float32 [C]; empty if the line has a problem."""
    problem_kind: str = ""
    problem: str = ""
    """The problem in words; empty if the line is usable."""


NO_VECTOR = np.zeros(0, np.float32)


def parse_list(text: str, class_num: int) -> Iterator[ListLine]:
    """Parse a PaddleClas list. Empty lines are skipped, lines with problems are not."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        image, tab, numbers = line.partition("\t")
        if not tab:
            yield ListLine(number, image, NO_VECTOR, "format", "no tab between the path and the labels")
            continue
        try:
            vector = np.array([float(value) for value in numbers.split(",")], np.float32)
        except ValueError:
            yield ListLine(number, image, NO_VECTOR, "format", f"labels are not numbers: {numbers[:40]}")
            continue
        if len(vector) != class_num:
            problem = f"{len(vector)} labels for {class_num} classes"
            yield ListLine(number, image, NO_VECTOR, "vector length", problem)
        elif not (((vector >= 0) & (vector <= 1)) | np.isnan(vector)).all():
            problem = "a label is neither between 0 and 1 nor nan (unknown)"
            yield ListLine(number, image, NO_VECTOR, "format", problem)
        else:
            yield ListLine(number, image, vector)


def read_dataset(list_file: Path, class_num: int) -> Dataset:
    """Read a PaddleClas list; paths in it are relative to its folder.

    Raises:
        UsageError: a line is not a path, a tab and `class_num` numbers in 0..1 (or nan).
        OSError: the file cannot be read.
    """
    paths, vectors = [], []
    for line in parse_list(list_file.read_text(encoding="utf-8"), class_num):
        if line.problem:
            raise UsageError(
                f"{list_file}:{line.number}: expected a path, a tab and {class_num} numbers: {line.problem}"
            )
        paths.append(list_file.parent / line.image)
        vectors.append(line.vector)
    return Dataset(paths, np.asarray(vectors, dtype=np.float32))


def write_list(path: Path, images: Iterable[Path | str], targets: np.ndarray) -> None:
    """Write a PaddleClas list. `images`: paths, which become absolute, or uris; `targets`: [N, C], where 0.7 and nan are kept."""
    names = (str(image.absolute()) if isinstance(image, Path) else image for image in images)
    paddleclas.write_list(path, zip(names, targets, strict=True))


class NamedLabels(NamedTuple):
    """Images as the file names them, the class names of each, and all classes."""

    images: list[str]
    labels: list[Sequence[str]]
    classes: list[str]


def read_named_labels(path: Path) -> NamedLabels:
    """Read a file that names classes: `.json` (COCO), `.csv` or `.parquet`.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return NAMED_FORMATS[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid, csv.Error) as error:
        raise UsageError(f"data '{path}' cannot be read: {error}") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"data '{path}' is not what its suffix says: {type(error).__name__}: {error}") from None


def read_coco(path: Path) -> NamedLabels:
    """Read COCO instances. The classes are in the order of their ids."""
    content = json.loads(path.read_text("utf-8"))
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    labels: dict[int, set[str]] = {image["id"]: set() for image in content["images"]}
    for annotation in content["annotations"]:
        labels[annotation["image_id"]].add(names[annotation["category_id"]])
    return NamedLabels(
        [str(image["file_name"]) for image in content["images"]],
        [sorted(labels[image["id"]]) for image in content["images"]],
        [names[category_id] for category_id in sorted(names)],
    )


def read_csv(path: Path) -> NamedLabels:
    """Read the columns `uri` and `labels`, with `;` between labels. The classes are sorted by name."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = [
            (without_guard(row["uri"]), [name for name in without_guard(row["labels"]).split(";") if name])
            for row in csv.DictReader(stream)
        ]
    return _from_rows(rows)


def read_parquet(path: Path) -> NamedLabels:
    """Read the columns `uri` and `labels` (a list of texts). The classes are sorted by name."""
    columns = pq.read_table(path, columns=["uri", "labels"]).to_pydict()
    return _from_rows([(uri, labels or []) for uri, labels in zip(columns["uri"], columns["labels"], strict=True)])


def _from_rows(rows: list[tuple[str, list[str]]]) -> NamedLabels:
    labels = [names for _, names in rows]
    return NamedLabels([uri for uri, _ in rows], list(labels), sorted({name for names in labels for name in names}))


NAMED_FORMATS: Mapping[str, Callable[[Path], NamedLabels]] = {
    ".json": read_coco,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
LIST_SUFFIX = ".txt"
SUFFIXES = (LIST_SUFFIX, *NAMED_FORMATS)
"""Suffixes of the formats, in the order in which a split's file is looked for."""

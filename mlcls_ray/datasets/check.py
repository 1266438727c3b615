"""`mlcls dataset check`: what is wrong with a data set, before hours are spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mlcls_ray.config import S3Options
from mlcls_ray.datasets.split import SUFFIXES, find_split, read_classes, read_split
from mlcls_ray.errors import ImageError, UsageError
from mlcls_ray.explore.page import render
from mlcls_ray.images.decode import decode
from mlcls_ray.stages.read import hash_content

SPLITS = ("train", "dev", "val", "test")
IMBALANCE = 100
"""A class with so many times fewer images than the most frequent one is named."""
FEWEST = 5
EXAMPLES = 3
MAX_FINDINGS = 1000


class Finding(NamedTuple):
    """`error`: training would fail, or its numbers would lie; `warning`: it would work, and perhaps badly."""

    severity: Literal["error", "warning"]
    kind: str
    where: str
    message: str


class Line(NamedTuple):
    """A usable line of a split; `vector` is float32 [C] in 0..1."""

    path: Path
    number: int
    vector: np.ndarray


class Checked(NamedTuple):
    """`counts`: images of each split by class, int [C]; `images`: usable lines of each split; `examples`: some images of each class."""

    vocabulary: tuple[str, ...]
    findings: list[Finding]
    images: dict[str, int]
    counts: dict[str, np.ndarray]
    examples: dict[str, list[str]]

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)


def check(folder: Path) -> Checked:
    """Read every list and every image of a folder with `label.txt` and `train.txt`, `dev.txt` (or val, test); or .json, .csv, .parquet.

    Raises:
        UsageError: there is no class list, or no split.
    """
    files = {name: path for name in SPLITS if (path := find_split(folder, name))}
    if not files:
        raise UsageError(
            f"'{folder}' has none of {', '.join(f'{name}.txt' for name in SPLITS)} (or {', '.join(SUFFIXES[1:])})"
        )
    vocabulary = read_classes(folder, next(iter(files.values())))
    findings: list[Finding] = []
    lines: dict[str, list[Line]] = {}
    for split, path in files.items():
        is_list = path.suffix == ".txt"
        lines[split] = list(
            _lines(path, len(vocabulary), findings) if is_list else _entries(path, vocabulary, findings)
        )
    findings += _images(lines, files)
    counts = {
        split: (np.stack([line.vector for line in found]) > 0.5).sum(axis=0)
        if found
        else np.zeros(len(vocabulary), int)
        for split, found in lines.items()
    }
    findings += _classes(vocabulary, counts, files)
    return Checked(
        vocabulary,
        findings[:MAX_FINDINGS],
        {split: len(found) for split, found in lines.items()},
        counts,
        _examples(vocabulary, lines),
    )


def _entries(path: Path, vocabulary: tuple[str, ...], findings: list[Finding]) -> Iterator[Line]:
    """The images of a COCO, CSV or Parquet split, numbered from 1."""
    seen: Counter[Path] = Counter()
    data = read_split(path, vocabulary)
    for number, (image, vector) in enumerate(zip(data.paths, data.targets, strict=True), start=1):
        seen[image] += 1
        if seen[image] == 2:
            findings.append(
                Finding("warning", "twice in a split", f"{path.name}:{number}", f"{image} is listed before")
            )
        yield Line(image, number, vector)


def _lines(path: Path, class_num: int, findings: list[Finding]) -> Iterator[Line]:
    """The usable lines of a list; what is wrong with the others goes to `findings`."""
    seen: Counter[str] = Counter()
    for number, text in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        if not text.strip():
            continue
        where = f"{path.name}:{number}"
        image, separator, vector = text.partition("\t")
        if not separator:
            findings.append(Finding("error", "format", where, "no tab between the path and the labels"))
            continue
        try:
            values = np.array([float(value) for value in vector.split(",")], np.float32)
        except ValueError:
            findings.append(Finding("error", "format", where, f"labels are not numbers: {vector[:40]}"))
            continue
        if len(values) != class_num:
            findings.append(Finding("error", "vector length", where, f"{len(values)} labels for {class_num} classes"))
            continue
        if not (((values >= 0) & (values <= 1)) | np.isnan(values)).all():
            findings.append(Finding("error", "format", where, "a label is neither between 0 and 1 nor nan (unknown)"))
            continue
        seen[image] += 1
        if seen[image] == 2:
            findings.append(Finding("warning", "twice in a split", where, f"{image} is listed before"))
        yield Line(path.parent / image, number, values)


def _images(lines: dict[str, list[Line]], files: dict[str, Path]) -> Iterator[Finding]:
    """What cannot be read, and what is in two splits: the same bytes under whatever name."""
    places: dict[str, tuple[str, Line]] = {}
    with ThreadPoolExecutor(thread_name_prefix="check") as threads:
        for split, found in lines.items():
            for line, (digest, reason) in zip(found, threads.map(_read, found), strict=True):
                where = f"{files[split].name}:{line.number}"
                if reason:
                    yield Finding("error", "unreadable", where, f"{line.path}: {reason}")
                elif digest in places and places[digest][0] != split:
                    other, first = places[digest]
                    yield Finding(
                        "error",
                        "in two splits",
                        where,
                        f"{line.path.name} is the same image as {first.path.name} in {files[other].name}:{first.number}",
                    )
                else:
                    places.setdefault(digest, (split, line))


def _read(line: Line) -> tuple[str, str]:
    """The hash of an image's bytes, and why it cannot be read (empty: it can)."""
    try:
        image_bytes = line.path.read_bytes()
        decode(image_bytes)
    except OSError as error:
        return "", str(error.strerror)
    except ImageError as error:
        return "", f"{error.status}: {error}"
    return hash_content(image_bytes), ""


def _classes(vocabulary: tuple[str, ...], counts: dict[str, np.ndarray], files: dict[str, Path]) -> Iterator[Finding]:
    for split, found in counts.items():
        where = files[split].name
        empty = [vocabulary[one] for one in np.flatnonzero(found == 0)]
        if empty:
            severity: Literal["error", "warning"] = "warning"
            yield Finding(
                severity,
                "empty class",
                where,
                f"{len(empty)} classes without an image: {', '.join(empty[:8])}",
            )
        few = [f"{vocabulary[one]} {found[one]}" for one in np.flatnonzero((found > 0) & (found < FEWEST))]
        if few and split == "train":
            yield Finding(
                "warning",
                "few images",
                where,
                f"{len(few)} classes with fewer than {FEWEST}: {', '.join(few[:8])}",
            )
        used = found[found > 0]
        if used.size and used.max() / used.min() > IMBALANCE:
            most, least = (
                vocabulary[int(found.argmax())],
                vocabulary[int(np.where(found > 0, found, found.max() + 1).argmin())],
            )
            yield Finding(
                "warning",
                "imbalance",
                where,
                f"{most} has {used.max()} images, {least} {used.min()}: weight or sample by class",
            )


def _examples(vocabulary: tuple[str, ...], lines: dict[str, list[Line]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in vocabulary}
    for line in next(iter(lines.values())):
        for one in np.flatnonzero(line.vector > 0.5):
            if len(found[vocabulary[one]]) < EXAMPLES:
                found[vocabulary[one]].append(str(line.path.absolute()))
    return found


def page(folder: Path, checked: Checked) -> str:
    """The same as one HTML file, with images of each class."""
    uris = [uri for examples in checked.examples.values() for uri in examples]
    most = max((int(found.max()) for found in checked.counts.values() if found.size), default=1) or 1
    return render(
        "dataset.html.j2", S3Options(), uris, len(uris), {"name": str(folder), "checked": checked, "most": most}
    )

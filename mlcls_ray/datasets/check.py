"""`mlcls dataset check`: find what is wrong with a data set before hours of training are spent on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mlcls_ray.config import S3Options
from mlcls_ray.datasets.formats import LIST_SUFFIX, SUFFIXES, parse_list
from mlcls_ray.datasets.split import find_split, read_classes, read_split
from mlcls_ray.errors import ImageError, UsageError, one_image
from mlcls_ray.explore.page import render
from mlcls_ray.images.decode import decode
from mlcls_ray.stages.read import hash_content

SPLITS = ("train", "dev", "val", "test")
MAX_IMBALANCE = 100
"""A warning names the rarest class if the most frequent one has more than so many times its images."""
MIN_TRAIN_IMAGES = 5
"""A warning names classes with fewer training images."""
EXAMPLES_PER_CLASS = 3
MAX_FINDINGS = 1000
MAX_NAMES = 8
"""Number of classes that a warning names."""

Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """A problem. `error`: training fails, or its metrics are wrong; `warning`: training works, but the model may be bad."""

    severity: Severity
    kind: str
    where: str
    message: str


class Entry(NamedTuple):
    """A usable image of a split with its position in the file (from 1); `vector` is float32 [C] in 0..1."""

    path: Path
    number: int
    vector: np.ndarray


class CheckResult(NamedTuple):
    """The findings, and for each split its usable images and its positives by class, int [C]; with example images of each class."""

    vocabulary: tuple[str, ...]
    findings: list[Finding]
    images: dict[str, int]
    counts: dict[str, np.ndarray]
    examples: dict[str, list[str]]

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)


def check(folder: Path) -> CheckResult:
    """Read each list and each image of a folder with `label.txt` and `train.txt`, `dev.txt` (or val, test); or .json, .csv, .parquet.

    Raises:
        UsageError: there is no class list, or no split.
    """
    files = {name: path for name in SPLITS if (path := find_split(folder, name))}
    if not files:
        names = ", ".join(f"{name}{LIST_SUFFIX}" for name in SPLITS)
        raise UsageError(f"'{folder}' has none of {names} (or {', '.join(SUFFIXES[1:])})")
    vocabulary = read_classes(folder, next(iter(files.values())))
    findings: list[Finding] = []
    entries = {split: _read_entries(path, vocabulary, findings) for split, path in files.items()}
    for split, path in files.items():
        findings += _duplicates(path.name, entries[split])
    findings += _check_images(entries, files)
    counts = {split: _count_positives(images, len(vocabulary)) for split, images in entries.items()}
    for split, positives in counts.items():
        findings += _check_classes(split, files[split].name, vocabulary, positives)
    return CheckResult(
        vocabulary=vocabulary,
        findings=findings[:MAX_FINDINGS],
        images={split: len(images) for split, images in entries.items()},
        counts=counts,
        examples=_examples(vocabulary, next(iter(entries.values()))),
    )


def _read_entries(path: Path, vocabulary: tuple[str, ...], findings: list[Finding]) -> list[Entry]:
    """Read the usable entries of a split. Problems of a PaddleClas list are added to `findings`."""
    if path.suffix != LIST_SUFFIX:
        data = read_split(path, vocabulary)
        return [
            Entry(image, number, vector)
            for number, (image, vector) in enumerate(zip(data.paths, data.targets, strict=True), start=1)
        ]
    entries = []
    for line in parse_list(path.read_text("utf-8", errors="replace"), len(vocabulary)):
        if line.problem:
            findings.append(Finding("error", line.problem_kind, f"{path.name}:{line.number}", line.problem))
        else:
            entries.append(Entry(path.parent / line.image, line.number, line.vector))
    return entries


def _duplicates(file_name: str, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Find paths that a split lists twice."""
    seen: dict[Path, int] = {}
    for entry in entries:
        seen[entry.path] = seen.get(entry.path, 0) + 1
        if seen[entry.path] == 2:
            where = f"{file_name}:{entry.number}"
            yield Finding("warning", "twice in a split", where, f"{entry.path} is listed before")


def _check_images(entries: Mapping[str, list[Entry]], files: Mapping[str, Path]) -> Iterator[Finding]:
    """Find images that cannot be read, and the same bytes in two splits under any name."""
    first_by_hash: dict[str, tuple[str, Entry]] = {}
    with ThreadPoolExecutor(thread_name_prefix="check") as threads:
        for split, images in entries.items():
            for entry, (content_hash, problem) in zip(images, threads.map(_read, images), strict=True):
                where = f"{files[split].name}:{entry.number}"
                if problem:
                    yield Finding("error", "unreadable", where, f"{entry.path}: {problem}")
                    continue
                first_split, first = first_by_hash.setdefault(content_hash, (split, entry))
                if first_split != split:
                    message = f"{entry.path.name} is the same image as {first.path.name}"
                    yield Finding(
                        "error", "in two splits", where, f"{message} in {files[first_split].name}:{first.number}"
                    )


def _read(entry: Entry) -> tuple[str, str]:
    """Return the hash of an image's bytes, and the reason why it cannot be read: one of the two is empty."""
    try:
        image_bytes = entry.path.read_bytes()
        with one_image():
            decode(image_bytes)
    except OSError as error:
        return "", str(error.strerror)
    except ImageError as error:
        return "", f"{error.status}: {error}"
    return hash_content(image_bytes), ""


def _count_positives(entries: Sequence[Entry], class_num: int) -> np.ndarray:
    vectors = np.array([entry.vector for entry in entries], np.float32).reshape(-1, class_num)
    positives: np.ndarray = (vectors > 0.5).sum(axis=0)
    return positives


def _check_classes(split: str, where: str, vocabulary: tuple[str, ...], positives: np.ndarray) -> Iterator[Finding]:
    """Find classes without images, with few training images, and a large imbalance between classes."""
    empty = [vocabulary[class_id] for class_id in np.flatnonzero(positives == 0)]
    if empty:
        names = ", ".join(empty[:MAX_NAMES])
        yield Finding("warning", "empty class", where, f"{len(empty)} classes without an image: {names}")
    few_ids = np.flatnonzero((positives > 0) & (positives < MIN_TRAIN_IMAGES))
    if few_ids.size and split == "train":
        names = ", ".join(f"{vocabulary[class_id]} {positives[class_id]}" for class_id in few_ids[:MAX_NAMES])
        message = f"{len(few_ids)} classes with fewer than {MIN_TRAIN_IMAGES}: {names}"
        yield Finding("warning", "few images", where, message)
    class_ids = np.flatnonzero(positives)
    if class_ids.size:
        most = class_ids[positives[class_ids].argmax()]
        least = class_ids[positives[class_ids].argmin()]
        if positives[most] / positives[least] > MAX_IMBALANCE:
            message = (
                f"{vocabulary[most]} has {positives[most]} images, {vocabulary[least]} {positives[least]}: "
                "consider class_balance_power"
            )
            yield Finding("warning", "imbalance", where, message)


def _examples(vocabulary: tuple[str, ...], entries: Sequence[Entry]) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {name: [] for name in vocabulary}
    for entry in entries:
        for class_id in np.flatnonzero(entry.vector > 0.5):
            paths = examples[vocabulary[class_id]]
            if len(paths) < EXAMPLES_PER_CLASS:
                paths.append(str(entry.path.absolute()))
    return examples


def page(folder: Path, checked: CheckResult) -> str:
    """Render the result as one HTML file, with images of each class."""
    uris = [uri for examples in checked.examples.values() for uri in examples]
    most = max((int(positives.max()) for positives in checked.counts.values() if positives.size), default=1) or 1
    return render(
        "dataset.html.j2", S3Options(), uris, len(uris), {"name": str(folder), "checked": checked, "most": most}
    )

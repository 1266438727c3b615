"""PaddleClas's multi-label list: `path<TAB>0,1,0,…`, with the class names in `label.txt` beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mlcls_ray.labels.vocabulary import write_vocabulary
from mlcls_ray.table.export.base import LabeledImage

LIST, CLASSES = "labels.txt", "label.txt"


def write_paddleclas(images: Iterable[LabeledImage], classes: Sequence[str], target: Path) -> int:
    """Write a new folder with `labels.txt` and `label.txt`; returns the number of images.

    Uris are absolute. PaddleClas joins them to its image root, which then is `/`.
    """
    target.mkdir()
    write_vocabulary(target / CLASSES, classes)
    return write_list(target / LIST, ((image.uri, _indicators(image, len(classes))) for image in images))


def write_list(target: Path, rows: Iterable[tuple[str, Iterable[float]]]) -> int:
    """Write a list file of paths or uris and their targets, one number per class; returns the number of lines.

    Numbers are written as short as they can be, so that 0.7 and nan are read back as they were.
    """
    count = 0
    with target.open("w", encoding="utf-8", newline="\n") as stream:
        for name, targets in rows:
            count += 1
            stream.write(f"{name}\t{','.join(f'{value:g}' for value in targets)}\n")
    return count


def _indicators(image: LabeledImage, class_num: int) -> list[int]:
    """Return 1 for each class that is a label of the image, else 0."""
    labels = set(image.class_ids)
    return [int(class_id in labels) for class_id in range(class_num)]

"""`mlcls export-labels`: write the labels for other tools. Rows are streamed: memory does not grow with the table.

To add a format: write its file with a function like `write_csv`, and name it in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import check_new_target
from mlcls_ray.storage.whole import written_whole
from mlcls_ray.table.export.base import LabeledImage, all_classes, labeled_images, numbered
from mlcls_ray.table.export.coco import write_coco
from mlcls_ray.table.export.csv import write_csv
from mlcls_ray.table.export.fiftyone import write_fiftyone
from mlcls_ray.table.export.labelstudio import write_label_studio
from mlcls_ray.table.export.paddleclas import write_paddleclas
from mlcls_ray.table.label_table import LabelTable

Writer = Callable[[Iterable[LabeledImage], Sequence[str], Path], int]
FORMATS: Mapping[str, Writer] = {
    "csv": write_csv,
    "coco": write_coco,
    "paddleclas": write_paddleclas,
    "labelstudio": write_label_studio,
    "fiftyone": write_fiftyone,
}


def export(table: LabelTable, kind: str, target: Path) -> int:
    """Write every image that is `ok`, in one of `FORMATS`; returns the number of images.

    Raises:
        UsageError: the runs have several vocabularies, or the target exists or cannot be written.
    """
    check_new_target(target)
    classes = all_classes(table)
    try:
        with written_whole(target) as path:
            return FORMATS[kind](numbered(labeled_images(table), classes), classes, path)
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror}") from None

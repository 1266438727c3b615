"""FiftyOne: a folder of type `FiftyOneImageClassificationDataset`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlcls_ray.storage.uris import readable_path
from mlcls_ray.table.export.base import LabeledImage, separator


def write_fiftyone(images: Iterable[LabeledImage], classes: Sequence[str], target: Path) -> int:
    """Write a new folder; returns the number of images.

    Read it by `fiftyone.Dataset.from_dir(dataset_dir=…, dataset_type=fiftyone.types.FiftyOneImageClassificationDataset)`.
    """
    target.mkdir()
    count = 0
    with (
        (target / "data.json").open("w", encoding="utf-8") as data,
        (target / "labels.json").open("w", encoding="utf-8") as labels,
    ):
        data.write("{")
        labels.write(f'{{"classes": {json.dumps(classes, ensure_ascii=False)}, "labels": {{')
        for count, image in enumerate(images, start=1):
            key = f'{separator(count)}"{count:09d}": '
            data.write(key + json.dumps(readable_path(image.uri), ensure_ascii=False))
            labels.write(key + json.dumps(_classifications(image), ensure_ascii=False))
        data.write("\n}\n")
        labels.write("\n}}\n")
    return count


def _classifications(image: LabeledImage) -> list[dict[str, object]]:
    return [
        {"label": label, "confidence": None if score is None else round(score, 5)}
        for label, score in zip(image.labels, image.scores, strict=True)
    ]

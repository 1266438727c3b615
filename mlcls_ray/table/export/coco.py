"""COCO JSON with image-level labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from mlcls_ray.table.export.base import LabeledImage, separator


def write_coco(images: Iterable[LabeledImage], classes: Sequence[str], target: Path) -> int:
    """Write COCO's JSON; returns the number of images.

    The box of an annotation is the whole image. Category ids are class ids + 1, not COCO's own 1 to 90.
    """
    count = annotations = 0
    with (
        target.open("w", encoding="utf-8") as stream,
        # The file has two lists, which are made at the same time.
        TemporaryFile("w+", encoding="utf-8", dir=target.parent) as annotation_stream,
    ):
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(classes)]
        stream.write(f'{{"info": {{"description": "mlcls_ray"}}, "categories": {json.dumps(categories)},\n"images": [')
        for count, image in enumerate(images, start=1):
            entry = {"id": count, "file_name": image.uri, "width": image.width, "height": image.height}
            stream.write(separator(count) + json.dumps(entry, ensure_ascii=False))
            for class_id, score in zip(image.class_ids, image.scores, strict=True):
                assert class_id is not None  # `numbered` gave it one
                annotations += 1
                annotation = {
                    "id": annotations,
                    "image_id": count,
                    "category_id": class_id + 1,
                    "bbox": [0, 0, image.width, image.height],
                    "area": image.width * image.height,
                    "iscrowd": 0,
                    "score": None if score is None else round(score, 5),
                }
                annotation_stream.write(separator(annotations) + json.dumps(annotation))
        stream.write('\n],\n"annotations": [')
        annotation_stream.seek(0)
        for line in annotation_stream:
            stream.write(line)
        stream.write("\n]}\n")
    return count

"""Label Studio: tasks with predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mlcls_ray.storage.uris import readable_path
from mlcls_ray.table.export.base import LabeledImage, write_json_list


def write_label_studio(images: Iterable[LabeledImage], classes: Sequence[str], target: Path) -> int:
    """Write tasks for a project with `<Image name="image" value="$image"/>` and
    `<Choices name="labels" toName="image" choice="multiple">`; returns their number.
    """
    with target.open("w", encoding="utf-8") as stream:
        return write_json_list(stream, map(label_studio_task, images))


def label_studio_task(image: LabeledImage) -> dict[str, object]:
    """Make one task. A local file is named as Label Studio's local storage serves it."""
    choices = {
        "from_name": "labels",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": image.labels},
    }
    path = readable_path(image.uri)
    url = f"/data/local-files/?d={path.lstrip('/')}" if path.startswith("/") else path
    prediction = {
        "model_version": "mlcls_ray",
        "score": round(min((score for score in image.scores if score is not None), default=0.0), 5),
        "result": [choices] if image.labels else [],
    }
    return {"data": {"image": url, "uri": image.uri}, "predictions": [prediction]}

"""To people and back: images to annotate as files for Label Studio and FiftyOne; and their corrections as a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from mlcls_ray.config import S3Options
from mlcls_ray.datasets.formats import Dataset, write_list
from mlcls_ray.datasets.ground_truth import LABEL_LIST
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.explore.page import render
from mlcls_ray.labels.vocabulary import write_vocabulary
from mlcls_ray.storage.uris import is_local, path_of_uri
from mlcls_ray.table.export.base import LabeledImage, table_vocabulary
from mlcls_ray.table.export.csv import write_csv
from mlcls_ray.table.export.fiftyone import write_fiftyone
from mlcls_ray.table.export.labelstudio import write_label_studio
from mlcls_ray.table.label_table import LabelTable

TARGETS = "SELECT uri, class_ids FROM labels WHERE status = 'ok' ORDER BY uri"
SOFT_TARGETS = "SELECT uri, all_scores FROM labels WHERE status = 'ok' ORDER BY uri"
LIST, SHEET, TASKS, FIFTYONE, PROJECT = "images.csv", "sheet.html", "labelstudio.json", "fiftyone", "labelstudio.xml"
THUMBNAILS = 1000


def write_sample(rows: Sequence[LabeledImage], classes: list[str], folder: Path, s3: S3Options, title: str) -> None:
    """A new folder: images.csv, sheet.html, labelstudio.json with labelstudio.xml (the project's interface), and fiftyone/.

    Raises:
        UsageError: the folder is there already, or cannot be written.
    """
    if folder.exists():
        raise UsageError(f"'{folder}' exists already: remove it, or give another --out")
    try:
        folder.mkdir(parents=True)
        write_csv(iter(rows), classes, folder / LIST)
        write_label_studio(iter(rows), classes, folder / TASKS)
        write_fiftyone(iter(rows), classes, folder / FIFTYONE)
        (folder / PROJECT).write_text(label_studio_interface(classes), encoding="utf-8")
        sheet = render("sample.html.j2", s3, [row.uri for row in rows], THUMBNAILS, {"rows": rows, "title": title})
        (folder / SHEET).write_text(sheet, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be written: {error.strerror}") from None


def label_studio_interface(classes: Sequence[str]) -> str:
    """The labeling interface that the tasks are made for."""
    from xml.sax.saxutils import quoteattr

    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n  <Choices name="labels" toName="image" choice="multiple" showInline="true">\n'
        f"{choices}\n  </Choices>\n</View>\n"
    )


def read_corrections(export: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """Uri → labels from Label Studio's JSON export (or JSON-MIN); images that nobody has annotated are left out.

    Raises:
        UsageError: it cannot be read, or names a class that there is not.
    """
    try:
        tasks: list[dict[str, Any]] = json.loads(export.read_text("utf-8"))
        found = {_uri(task): labels for task in tasks if (labels := _labels(task)) is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"'{export}' is not an export of Label Studio in JSON: {type(error).__name__}: {error}"
        ) from None
    for labels in found.values():
        for label in labels:
            if label not in classes:
                raise UsageError(f"'{export}': unknown class '{label}'{suggest(label, classes)}")
    return found


def _uri(task: dict[str, Any]) -> str:
    data = task.get("data", task)
    if "uri" in data:
        return str(data["uri"])
    image = str(data["image"])
    local = parse_qs(urlsplit(image).query).get("d")  # /data/local-files/?d=…
    return f"/{local[0]}" if local else image


def _labels(task: dict[str, Any]) -> list[str] | None:
    """What the newest annotation says; None where there is none."""
    if "data" not in task:  # JSON-MIN
        told = task.get("labels")
        return None if told is None else list(told["choices"]) if isinstance(told, dict) else [str(told)]
    annotations = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    if not annotations:
        return None
    newest = max(annotations, key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))
    return [name for one in newest["result"] if one["type"] == "choices" for name in one["value"]["choices"]]


def dataset_of_table(table: LabelTable, corrections: Path | None, is_soft: bool, folder: Path) -> int:
    """A data set of what a label table says of its images (`is_soft`: by all scores), with people's corrections; returns the images.

    Raises:
        UsageError: several vocabularies, scores that were not kept, an image that is not on this machine, or lists in the folder.
    """
    classes = table_vocabulary(table)
    corrected = read_corrections(corrections, classes) if corrections else {}
    query = SOFT_TARGETS if is_soft else TARGETS
    paths, targets = [], []
    for uri, told in table.database.execute(query).fetchall():
        if is_soft and (told is None or None in told):
            raise UsageError(f"'{uri}' has not all of its scores in the table (all_scores: all); leave --soft out")
        if not is_local(uri):
            raise UsageError(f"'{uri}' is not on this machine: training reads images of this machine only")
        row = np.array(told, np.float32) if is_soft else np.isin(np.arange(len(classes)), told).astype(np.float32)
        if uri in corrected:
            row = np.array([name in corrected[uri] for name in classes], np.float32)
        paths.append(Path(path_of_uri(uri)))
        targets.append(row)
    target = _new_list(folder, classes)
    write_list(target, Dataset(paths, np.array(targets, np.float32).reshape(-1, len(classes))))
    return len(paths)


def _new_list(folder: Path, classes: Sequence[str]) -> Path:
    """train.txt of a folder that has none, with label.txt beside it.

    Raises:
        UsageError: the folder has lists already.
    """
    target = folder / "train.txt"
    if target.exists():
        raise UsageError(f"'{target}' exists already: give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder / LABEL_LIST, classes)
    return target


def write_dataset(labels: dict[str, list[str]], classes: Sequence[str], folder: Path) -> None:
    """A PaddleClas data set: `label.txt`, and `train.txt` with absolute paths (or uris).

    Raises:
        UsageError: the folder has lists already.
    """
    with _new_list(folder, classes).open("w", encoding="utf-8") as stream:
        for uri, chosen in labels.items():
            stream.write(f"{uri}\t{','.join('1' if name in chosen else '0' for name in classes)}\n")

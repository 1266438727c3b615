"""Annotation by people: images as files for Label Studio and FiftyOne, and their corrections as a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from mlcls_ray.config import S3Options
from mlcls_ray.datasets.formats import write_list
from mlcls_ray.datasets.ground_truth import LABEL_LIST
from mlcls_ray.datasets.split import new_list
from mlcls_ray.errors import UsageError, first_names, suggest
from mlcls_ray.explore.page import render
from mlcls_ray.labels.label_map import merge_classes
from mlcls_ray.labels.vocabulary import write_vocabulary
from mlcls_ray.storage.store import check_new_target
from mlcls_ray.storage.uris import is_local, path_of_uri
from mlcls_ray.storage.whole import written_whole
from mlcls_ray.table.corrections import unknown_labels
from mlcls_ray.table.export.base import LabeledImage, table_map, table_vocabulary
from mlcls_ray.table.export.csv import write_csv
from mlcls_ray.table.export.fiftyone import write_fiftyone
from mlcls_ray.table.export.labelstudio import write_label_studio
from mlcls_ray.table.label_table import LabelTable

IMAGES, SHEET, TASKS, FIFTYONE, INTERFACE = (
    "images.csv",
    "sheet.html",
    "labelstudio.json",
    "fiftyone",
    "labelstudio.xml",
)
MAX_THUMBNAILS = 1000


def write_sample(rows: Sequence[LabeledImage], classes: list[str], folder: Path, s3: S3Options, title: str) -> None:
    """Write a new folder: images.csv, sheet.html, labelstudio.json with labelstudio.xml (the project's interface), and fiftyone/.

    Raises:
        UsageError: the folder exists, or cannot be written.
    """
    check_new_target(folder, "--out")
    try:
        with written_whole(folder) as path:
            path.mkdir()
            write_csv(rows, classes, path / IMAGES)
            write_label_studio(rows, classes, path / TASKS)
            write_fiftyone(rows, classes, path / FIFTYONE)
            (path / INTERFACE).write_text(label_studio_interface(classes), encoding="utf-8")
            uris = [row.uri for row in rows]
            sheet = render("sample.html.j2", s3, uris, MAX_THUMBNAILS, {"rows": rows, "title": title})
            (path / SHEET).write_text(sheet, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be written: {error.strerror}") from None


def label_studio_interface(classes: Sequence[str]) -> str:
    """Return the labeling interface of a Label Studio project, as XML, that fits the tasks."""
    from xml.sax.saxutils import quoteattr

    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n  <Choices name="labels" toName="image" choice="multiple" showInline="true">\n'
        f"{choices}\n  </Choices>\n</View>\n"
    )


def read_corrections(export: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """Read uri → labels from Label Studio's export, JSON or JSON-MIN. Images without an annotation are left out.

    Raises:
        UsageError: the file cannot be read, or names an unknown class.
    """
    try:
        tasks: list[dict[str, Any]] = json.loads(export.read_text("utf-8"))
        corrections = {_uri(task): labels for task in tasks if (labels := _labels(task)) is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"'{export}' is not an export of Label Studio in JSON: {type(error).__name__}: {error}"
        ) from None
    for labels in corrections.values():
        for label in labels:
            if label not in classes:
                raise UsageError(f"'{export}': unknown class '{label}'{suggest(label, classes)}")
    return corrections


def _uri(task: dict[str, Any]) -> str:
    data = task.get("data", task)
    if "uri" in data:
        return str(data["uri"])
    image = str(data["image"])
    local_path = parse_qs(urlsplit(image).query).get("d")  # /data/local-files/?d=…
    return f"/{local_path[0]}" if local_path else image


def _labels(task: dict[str, Any]) -> list[str] | None:
    """Return the labels of the newest annotation, or None if there is none."""
    if "data" not in task:  # JSON-MIN: the key is missing, one label as text, or several
        labels = task.get("labels")
        if labels is None:
            return None
        return list(labels["choices"]) if isinstance(labels, dict) else [str(labels)]
    annotations = [annotation for annotation in task.get("annotations") or () if not annotation.get("was_cancelled")]
    if not annotations:
        return None
    newest = max(
        annotations, key=lambda annotation: str(annotation.get("updated_at") or annotation.get("created_at") or "")
    )
    results = [result for result in newest["result"] if result["type"] == "choices"]
    return [name for result in results for name in result["value"]["choices"]]


def dataset_of_table(table: LabelTable, corrections: Path | None, is_soft: bool, folder: Path) -> int:
    """Write a data set from the labels of a table (`is_soft`: from all scores), with people's corrections. Return the number of images.

    A table with corrections (`open_labels(corrected=True)`) gives them as hard labels, without the images that people are unsure of.
    `corrections`: an export of Label Studio, which goes before both.

    Raises:
        UsageError: several vocabularies, scores that are not in the table, an image that is not on this machine, or an existing list.
    """
    label_map = table_map(table)
    classes = label_map.labels
    corrected = read_corrections(corrections, classes) if corrections else {}
    list_file = new_list(folder, "train")
    paths, targets = [], []
    for uri, values, given in table.sql(_target_query(table, is_soft)).fetchall():
        if is_soft and given is None and uri not in corrected and (values is None or None in values):
            raise UsageError(f"'{uri}' does not have all scores in the table (all_scores: all); omit --soft")
        if not is_local(uri):
            raise UsageError(f"'{uri}' is not on this machine: training reads images of this machine only")
        paths.append(Path(path_of_uri(uri)))
        if uri in corrected:
            targets.append(_vector(corrected[uri], classes))
        elif is_soft and given is None:
            targets.append(merge_classes(np.array([values], np.float32), label_map.groups)[0])
        else:
            targets.append(_vector(values if given is None else given, classes))
    _write(list_file, classes, paths, np.array(targets, np.float32).reshape(-1, len(classes)))
    return len(paths)


def _target_query(table: LabelTable, is_soft: bool) -> str:
    """Query the uri, the scores or labels, and the labels of a corrected image; without the images that people are unsure of."""
    values, given, sure = "all_scores" if is_soft else "labels.labels", "NULL", ""
    if table.corrections is not None:
        given, sure = "CASE WHEN verdict = 'labeled' THEN labels.labels END", "AND verdict IS DISTINCT FROM 'unsure'"
    return f"SELECT uri, {values}, {given} FROM labels WHERE status = 'ok' {sure} ORDER BY uri"  # noqa: S608


def correction_notes(table: LabelTable) -> list[str]:
    """Say what a data set of the table does not hold: labels that its vocabulary lacks, and images that people are unsure of."""
    if table.corrections is None:
        return []
    notes = []
    if unknown := unknown_labels(table.corrections, table_vocabulary(table)):
        notes.append(
            f"corrections name {len(unknown)} labels that the model does not know, left out: {first_names(sorted(unknown))}"
        )
    ((unsure,),) = table.sql("SELECT count(*) FROM labels WHERE verdict = 'unsure'").fetchall()
    if unsure:
        notes.append(f"{unsure:,} images that people are unsure of are left out")
    return notes


def write_dataset(labels: Mapping[str, Sequence[str]], classes: Sequence[str], folder: Path) -> None:
    """Write a PaddleClas data set of uri → labels: `label.txt` and `train.txt`.

    Raises:
        UsageError: the folder has a train.txt already.
    """
    targets = np.array([_vector(names, classes) for names in labels.values()]).reshape(-1, len(classes))
    _write(new_list(folder, "train"), classes, list(labels), targets)


def _vector(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    return np.array([name in labels for name in classes], np.float32)


def _write(list_file: Path, classes: Sequence[str], images: Sequence[Path | str], targets: np.ndarray) -> None:
    list_file.parent.mkdir(parents=True, exist_ok=True)
    write_vocabulary(list_file.parent / LABEL_LIST, classes)
    write_list(list_file, images, targets)

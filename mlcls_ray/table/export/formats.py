"""`mlcls export-labels`: the labels for other tools. Rows are streamed: memory does not grow with the table."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple, get_args

from mlcls_ray import schema
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.vocabulary import write_vocabulary
from mlcls_ray.storage.uris import is_local, path_of_uri
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.views import LABELS

Format = Literal["csv", "coco", "paddleclas", "labelstudio", "fiftyone"]
FETCH_ROWS = 10_000


class Labeled(NamedTuple):
    """One image that is `ok`, with its labels, best first."""

    uri: str
    width: int
    height: int
    class_ids: list[int]
    labels: list[str]
    scores: list[float]


def export(table: LabelTable, kind: Format, target: Path) -> int:
    """Write every image that was labeled; returns how many.

    Raises:
        UsageError: the runs are of several vocabularies, or the target cannot be written.
    """
    classes = vocabulary(table)
    writers: dict[Format, Callable[[Iterator[Labeled], list[str], Path], int]] = {
        "csv": write_csv,
        "coco": write_coco,
        "paddleclas": write_paddleclas,
        "labelstudio": write_label_studio,
        "fiftyone": write_fiftyone,
    }
    assert set(writers) == set(get_args(Format))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return writers[kind](labeled_rows(table), classes, target)
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror}") from None


def vocabulary(table: LabelTable) -> list[str]:
    """The class names of the runs, in order.

    Raises:
        UsageError: they are of several vocabularies.
    """
    known = {tuple(record.thresholds) for record in table.records.values()}
    if len(known) > 1:
        raise UsageError(f"the runs are of {len(known)} vocabularies: choose one run by --run-id")
    return list(known.pop())


def labeled_rows(table: LabelTable) -> Iterator[Labeled]:
    columns = (schema.URI, schema.WIDTH, schema.HEIGHT, schema.CLASS_IDS, schema.LABELS, schema.SCORES)
    query = f"SELECT {', '.join(columns)} FROM {LABELS} WHERE {schema.STATUS} = 'ok' ORDER BY {schema.URI}"
    for batch in table.database.sql(query).to_arrow_reader(FETCH_ROWS):
        for row in batch.to_pylist():
            yield Labeled(*row.values())


def write_csv(rows: Iterator[Labeled], classes: list[str], target: Path) -> int:
    """`uri,labels,scores`, the latter two with `;` between their values; names hold no `;` in any vocabulary that we know."""
    count = 0
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("uri", "labels", "scores"))
        for row in rows:
            count += 1
            writer.writerow((row.uri, ";".join(row.labels), ";".join(f"{score:.5f}" for score in row.scores)))
    return count


def write_coco(rows: Iterator[Labeled], classes: list[str], target: Path) -> int:
    """COCO's JSON with image-level labels: an annotation's box is the whole image. Category ids: class ids + 1, not COCO's own 1 to 90."""
    count = annotations = 0
    beside = target.with_suffix(target.suffix + ".annotations")  # two lists of one file, streamed at once
    with target.open("w", encoding="utf-8") as stream, beside.open("w+", encoding="utf-8") as others:
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(classes)]
        stream.write(f'{{"info": {{"description": "mlcls_ray"}}, "categories": {json.dumps(categories)},\n"images": [')
        for count, row in enumerate(rows, start=1):
            image = {"id": count, "file_name": row.uri, "width": row.width, "height": row.height}
            stream.write((",\n" if count > 1 else "\n") + json.dumps(image, ensure_ascii=False))
            for class_id, score in zip(row.class_ids, row.scores, strict=True):
                annotations += 1
                told = {
                    "id": annotations,
                    "image_id": count,
                    "category_id": class_id + 1,
                    "bbox": [0, 0, row.width, row.height],
                    "area": row.width * row.height,
                    "iscrowd": 0,
                    "score": round(score, 5),
                }
                others.write((",\n" if annotations > 1 else "\n") + json.dumps(told))
        stream.write('\n],\n"annotations": [')
        others.seek(0)
        for line in others:
            stream.write(line)
        stream.write("\n]}\n")
    beside.unlink()
    return count


def write_paddleclas(rows: Iterator[Labeled], classes: list[str], target: Path) -> int:
    """A folder with `labels.txt` (uri, tab, 0/1 for each class) and `label.txt` (number, name), as PaddleClas reads them.

    Uris are absolute; PaddleClas joins them to its image root, which then is `/`.
    """
    target.mkdir()
    write_vocabulary(target / "label.txt", classes)
    count = 0
    with (target / "labels.txt").open("w", encoding="utf-8") as stream:
        for row in rows:
            count += 1
            chosen = set(row.class_ids)
            stream.write(f"{row.uri}\t{','.join('1' if number in chosen else '0' for number in range(len(classes)))}\n")
    return count


def write_label_studio(rows: Iterator[Labeled], classes: list[str], target: Path) -> int:
    """Tasks with predictions, for a project with `<Image name="image" value="$image"/>` and
    `<Choices name="labels" toName="image" choice="multiple">`. Local files are named as Label Studio's local storage serves them.
    """
    with target.open("w", encoding="utf-8") as stream:
        return _write_list(stream, (label_studio_task(row) for row in rows))


def label_studio_task(row: Labeled) -> dict[str, object]:
    chosen = {
        "from_name": "labels",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": row.labels},
    }
    score = min(row.scores, default=0.0)
    image = f"/data/local-files/?d={path_of_uri(row.uri).lstrip('/')}" if is_local(row.uri) else row.uri
    prediction = {"model_version": "mlcls_ray", "score": round(score, 5), "result": [chosen] if row.labels else []}
    return {"data": {"image": image, "uri": row.uri}, "predictions": [prediction]}


def write_fiftyone(rows: Iterator[Labeled], classes: list[str], target: Path) -> int:
    """A folder for `fiftyone.Dataset.from_dir(dataset_dir=…, dataset_type=fiftyone.types.FiftyOneImageClassificationDataset)`."""
    target.mkdir()
    count = 0
    with (
        (target / "data.json").open("w", encoding="utf-8") as data,
        (target / "labels.json").open("w", encoding="utf-8") as labels,
    ):
        data.write("{")
        labels.write(f'{{"classes": {json.dumps(classes, ensure_ascii=False)}, "labels": {{')
        for count, row in enumerate(rows, start=1):
            before, name = (",\n" if count > 1 else "\n"), f'"{count:09d}": '
            told = [
                {"label": label, "confidence": round(score, 5)}
                for label, score in zip(row.labels, row.scores, strict=True)
            ]
            path = path_of_uri(row.uri) if is_local(row.uri) else row.uri
            data.write(before + name + json.dumps(path, ensure_ascii=False))
            labels.write(before + name + json.dumps(told, ensure_ascii=False))
        data.write("\n}\n")
        labels.write("\n}}\n")
    return count


def _write_list(stream: IO[str], items: Iterator[dict[str, object]]) -> int:
    count = 0
    stream.write("[")
    for count, item in enumerate(items, start=1):
        stream.write((",\n" if count > 1 else "\n") + json.dumps(item, ensure_ascii=False))
    stream.write("\n]\n")
    return count

"""The rows that all export formats write, and what the writers share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

from mlcls_ray.errors import UsageError
from mlcls_ray.labels.label_map import ResolvedLabelMap
from mlcls_ray.table.corrections import unknown_labels
from mlcls_ray.table.label_table import LabelTable

FETCH_ROWS = 10_000
RUNS_IN_USE = "SELECT DISTINCT run_id FROM labels"
OK_ROWS = "SELECT uri, width, height, class_ids, labels, scores FROM labels WHERE status = 'ok' ORDER BY uri"


class LabeledImage(NamedTuple):
    """One image that is `ok`, with its labels, best first.

    A label that a person gave has the model's score, or None; its class id is None where the vocabulary lacks it.
    """

    uri: str
    width: int
    height: int
    class_ids: list[int | None]
    labels: list[str]
    scores: list[float | None]


def labeled_images(table: LabelTable) -> Iterator[LabeledImage]:
    """Stream the images that are `ok`, in the order of their uris."""
    for batch in table.sql(OK_ROWS).to_arrow_reader(FETCH_ROWS):
        for row in batch.to_pylist():
            yield LabeledImage(**row)


def all_classes(table: LabelTable) -> list[str]:
    """Return the labels that images can have, and after them those that people gave and that are none of these, sorted.

    Raises: as `table_map`.
    """
    vocabulary = table_vocabulary(table)
    return vocabulary + (sorted(unknown_labels(table.corrections, vocabulary)) if table.corrections is not None else [])


def numbered(images: Iterable[LabeledImage], classes: Sequence[str]) -> Iterator[LabeledImage]:
    """Give each label the class id that it has in `classes`: people give labels, and label maps make some, that the model lacks."""
    places = {name: class_id for class_id, name in enumerate(classes)}
    for image in images:
        yield image._replace(class_ids=[places[label] for label in image.labels])


def table_vocabulary(table: LabelTable) -> list[str]:
    """Return the labels that images can have, in the order of the model's classes.

    Raises: as `table_map`.
    """
    return list(table_map(table).labels)


def table_map(table: LabelTable) -> ResolvedLabelMap:
    """Return the classes and labels of the runs that the newest rows are of.

    Raises:
        UsageError: they have several vocabularies, or several label maps.
    """
    maps = {run_id: record.resolved_map for run_id, record in table.records.items()}
    if len(set(maps.values())) > 1:
        in_use = {run_id for (run_id,) in table.sql(RUNS_IN_USE).fetchall()}
        maps = {run_id: label_map for run_id, label_map in maps.items() if run_id in in_use}
    vocabularies = {label_map.vocabulary for label_map in maps.values()}
    if len(vocabularies) > 1:
        raise UsageError(f"the runs are of {len(vocabularies)} vocabularies: choose one run by --run-id")
    distinct = set(maps.values())
    if len(distinct) > 1:
        raise UsageError(
            f"the newest rows are labeled by {len(distinct)} label maps: `mlcls relabel OUT --map FILE` (or --map none) labels all of them "
            "by one; or choose one run by --run-id"
        )
    return distinct.pop()


def separator(number: int) -> str:
    """Return what goes before the `number`th item (from 1) of a JSON list or object that is written item by item."""
    return ",\n" if number > 1 else "\n"


def write_json_list(stream: IO[str], items: Iterable[object]) -> int:
    """Write a JSON list item by item; returns the number of items."""
    count = 0
    stream.write("[")
    for count, item in enumerate(items, start=1):
        stream.write(separator(count) + json.dumps(item, ensure_ascii=False))
    stream.write("\n]\n")
    return count

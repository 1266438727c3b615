"""Corrections: what people said about labels. They lie in OUT/corrections, in Parquet files that are written once and never changed.

The label table stays as the model made it. Each action of a person is one file, written whole or not at all, under a name that nobody else
uses: two writers at once cannot overwrite each other. The order of all actions is that of their numbers, and an action's number is greater
than all that its writer had seen; equal numbers are ordered by time, then by id, so that every reader has the same order.

For each label of an image the last action that changed it counts. Two people who add two labels to one image at the same moment lose none.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from enum import Enum
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.errors import UsageError, short_message
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table import layout
from mlcls_ray.table.records import RunRecord, newest_record

SUFFIX = ".parquet"
READERS = 16
MERGED_FROM = 100
"""Files from which on `mlcls compact` merges them."""
MEANT = {
    schema.VERDICT: "labeled",
    schema.NUMBER: 0,
    schema.CORRECTED_BY: "",
    schema.RUN_ID: "",
    schema.CORRECTION_ID: "",
}
"""The values of columns that an older version did not write. The other columns may be null, or are needed."""
NEEDED = (schema.URI, schema.BEFORE, schema.AFTER, schema.CORRECTED_AT)


class Verdict(str, Enum):
    """The verdict of a person about an image."""

    LABELED = "labeled"
    UNSURE = "unsure"
    WITHDRAWN = "withdrawn"

    __str__ = str.__str__


class Change(NamedTuple):
    """One image of an action: the labels that the person saw, and those from then on. `run_id` is the run that they were seen in."""

    uri: str
    content_hash: str | None
    run_id: str
    verdict: Verdict
    before: Sequence[str]
    after: Sequence[str]


class Action(NamedTuple):
    """An act of a person at one moment, on one image or on many. `undoes` is the id of the action that it takes back."""

    correction_id: str
    number: int
    corrected_by: str
    corrected_at: datetime
    undoes: str | None = None

    @property
    def file_name(self) -> str:
        """The action's file. The number in front lets a listing show the order."""
        return f"{self.number:012d}-{self.correction_id}{SUFFIX}"


def new_action(number: int, corrected_by: str, undoes: str | None = None) -> Action:
    """Begin an action of now, with an id that nobody else has."""
    return Action(uuid.uuid4().hex, number, corrected_by, datetime.now(timezone.utc), undoes)


def as_rows(action: Action, changes: Iterable[Change]) -> pa.Table:
    """Make the rows of an action, in the schema `CORRECTIONS`."""
    rows = [
        {
            schema.CORRECTION_ID: action.correction_id,
            schema.NUMBER: action.number,
            schema.CORRECTED_BY: action.corrected_by,
            schema.CORRECTED_AT: action.corrected_at,
            schema.UNDOES: action.undoes,
            schema.URI: change.uri,
            schema.CONTENT_HASH: change.content_hash,
            schema.RUN_ID: change.run_id,
            schema.VERDICT: str(change.verdict),
            schema.BEFORE: list(change.before),
            schema.AFTER: list(change.after),
        }
        for change in changes
    ]
    return pa.Table.from_pylist(rows, schema=schema.CORRECTIONS)


def write_action(store: Store, action: Action, rows: pa.Table) -> str:
    """Write an action, whole or not at all. Return the name of its file in the folder.

    Raises:
        UsageError: the output cannot be written, or its disk is full; nothing of the action is there then.
    """
    try:
        _write(store, action.file_name, rows)
    except Exception as error:  # each filesystem has its own errors
        raise UsageError(
            f"the correction was not saved: '{redact_url(store.uri(layout.CORRECTIONS))}' cannot be written: {short_message(error)}"
        ) from None
    return action.file_name


def correction_files(store: Store) -> list[str]:
    """List the files of corrections, by name in their folder."""
    return [name for name in store.names(layout.CORRECTIONS) if name.endswith(SUFFIX)]


def read_corrections(store: Store, names: Sequence[str] | None = None) -> pa.Table:
    """Read files of corrections (by default all) in the schema `CORRECTIONS`, whichever version wrote them. A row of two files comes once.

    Raises:
        UsageError: a file is damaged, or holds something else.
    """
    chosen = correction_files(store) if names is None else names
    if not chosen:
        return schema.CORRECTIONS.empty_table()
    with ThreadPoolExecutor(READERS, "corrections") as threads:
        tables = [table for table in threads.map(lambda name: _read(store, name), chosen) if table is not None]
    return _without_repeats(pa.concat_tables(tables) if tables else schema.CORRECTIONS.empty_table())


def merge_corrections(store: Store, at_least: int = MERGED_FROM) -> int:
    """Merge the files of corrections into one, if there are `at_least` so many; return how many were merged.

    The new file is there before the old ones go, and a reader that meets both reads each row once: a merge that dies loses nothing.
    """
    names = correction_files(store)
    if len(names) < at_least:
        return 0
    rows = read_corrections(store, names)
    _write(store, f"merged-{uuid.uuid4().hex}{SUFFIX}", rows)
    for name in names:
        store.remove(f"{layout.CORRECTIONS}/{name}")
    return len(names)


def unknown_labels(rows: pa.Table, vocabulary: Collection[str]) -> dict[str, int]:
    """Count the rows that name a label which `vocabulary` lacks, by label."""
    counts: dict[str, int] = {}
    for labels in rows.column(schema.AFTER).to_pylist():
        for label in labels:
            if label not in vocabulary:
                counts[label] = counts.get(label, 0) + 1
    return counts


def translate(rows: pa.Table, records: Mapping[str, RunRecord]) -> pa.Table:
    """Translate what people said of runs without a label map into the labels of the newest run, if that one has a map.

    Labels that it drops are taken out. What was said of a run with another map stays as it is.
    """
    newest = newest_record(records.values())
    if newest is None or not newest.label_map:
        return rows
    names = newest.label_map
    is_plain = [
        run_id in records and not records[run_id].label_map for run_id in rows.column(schema.RUN_ID).to_pylist()
    ]
    for column in (schema.BEFORE, schema.AFTER):
        field = rows.schema.field(column)
        said = zip(rows.column(column).to_pylist(), is_plain, strict=True)
        labels = [_renamed(labels, names) if is_translated else labels for labels, is_translated in said]
        rows = rows.set_column(rows.schema.get_field_index(column), field, [pa.array(labels, field.type)])
    return rows


def _renamed(labels: Sequence[str], names: Mapping[str, str | None]) -> list[str]:
    renamed = (names.get(label, label) for label in labels)
    return list(dict.fromkeys(name for name in renamed if name is not None))


def _write(store: Store, name: str, rows: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    store.write(f"{layout.CORRECTIONS}/{name}", sink.getvalue())


def _read(store: Store, name: str) -> pa.Table | None:
    """Read one file; None if another process has just merged it."""
    path = f"{layout.CORRECTIONS}/{name}"
    try:
        rows = store.read_columns(path, None)
        missing = [column for column in NEEDED if column not in rows.column_names]
        if missing:
            raise ValueError(f"it has no column '{missing[0]}'")
        columns = [
            rows.column(field.name).cast(field.type)
            if field.name in rows.column_names
            else _assumed(field, name, len(rows))
            for field in schema.CORRECTIONS
        ]
        return pa.table(columns, schema=schema.CORRECTIONS)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(
            f"'{redact_url(store.uri(path))}' is not a file of corrections: {short_message(error)}. Move it elsewhere"
        ) from None


def _assumed(field: pa.Field, name: str, rows: int) -> pa.Array:
    value = name.removesuffix(SUFFIX) if field.name == schema.CORRECTION_ID else MEANT.get(field.name)
    return pa.repeat(pa.scalar(value, field.type), rows)


def _without_repeats(rows: pa.Table) -> pa.Table:
    """Keep the first of equal rows. Only a merge that has died, or that runs now, leaves some."""
    keys = list(zip(rows.column(schema.CORRECTION_ID).to_pylist(), rows.column(schema.URI).to_pylist(), strict=True))
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    return rows if len(first) == len(keys) else rows.take(pa.array(sorted(first.values())))

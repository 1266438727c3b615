"""`mlcls tag --undo`: take back what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import duckdb

from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import path_of_uri
from mlcls_ray.table.tags.csv import TABLE
from mlcls_ray.table.tags.keywords import Added, LeftAloneError, Tagger
from mlcls_ray.table.tags.record import Entry, create_tagged_view, hash_of
from mlcls_ray.table.tags.tagging import KINDS
from mlcls_ray.table.tags.writer import Change, Notice, Summary, Writer, tags_lease, without_ours
from mlcls_ray.table.views import open_database

UNDONE_KINDS: Mapping[str, Callable[[], AbstractContextManager[Tagger]]] = {**KINDS, "csv": lambda: nullcontext(TABLE)}
FETCH_ROWS = 1_000
WRITTEN = "SELECT entry FROM tagged WHERE kind = $kind ORDER BY part DESC, line DESC"


def undo(store: Store, kind: str | None, notice: Notice | None = None) -> Summary:
    """Take back what `tag` wrote, the last first: files as they were, or without our keywords where others have changed them since.

    Raises:
        UsageError: ExifTool is missing, and was there when keywords were written into images.
        LeaseError: another process writes tags of this output.
    """
    with open_database() as (database, _), tags_lease(store, notice):
        store.register_with(database)
        create_tagged_view(database, store)
        summary = Summary()
        for name in UNDONE_KINDS if kind is None else (kind,):
            _undo_kind(database.execute(WRITTEN, {"kind": name}), store, name, notice, summary)
    return summary


def _undo_kind(
    rows: duckdb.DuckDBPyConnection, store: Store, kind: str, notice: Notice | None, summary: Summary
) -> None:
    batch = rows.fetchmany(FETCH_ROWS)
    if not batch:
        return
    with UNDONE_KINDS[kind]() as tagger:
        writer = Writer(store, kind, tagger, notice, summary, is_undone=True)
        while batch:
            for (text,) in batch:
                entry = Entry.model_validate_json(text)
                with writer.counted(path_of_uri(entry.path)):
                    writer.take(_plan_undo(writer, entry))
            batch = rows.fetchmany(FETCH_ROWS)
        writer.flush()


def _plan_undo(writer: Writer, entry: Entry) -> Change:
    """Plan how a file becomes what it was.

    Raises:
        LeftAloneError: the file is gone.
    """
    target = Path(path_of_uri(entry.path))
    current = writer.read(target)
    written = entry.as_written(hash_of(current))
    if current is None and (entry.before is not None or not target.parent.is_dir()):
        raise LeftAloneError("it is gone or was moved; the record of what was written in it is kept")
    base = without_ours(writer.tagger, current, written)
    return Change(target, base, entry, written.added if written else Added(), Added(), is_new=base != current)

"""The record of what was written into which file: OUT/tags/*.parquet. It is written before the files, so that nothing is ever unknown."""

from __future__ import annotations

import io
from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from mlcls_ray.stages.read import hash_content
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.tags.keywords import Added
from mlcls_ray.table.views import create_view

RECORD = pa.schema(
    [
        pa.field("part", pa.int32(), nullable=False),
        pa.field("line", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("is_undone", pa.bool_(), nullable=False),
        pa.field("entry", pa.string(), nullable=False),
    ]
)
TAGGED = """
    CREATE VIEW tagged AS
    SELECT * EXCLUDE (recency_rank) FROM (
        SELECT *, row_number() OVER (PARTITION BY kind, uri ORDER BY part DESC, line DESC) AS recency_rank FROM tag_record
    ) WHERE recency_rank = 1 AND NOT is_undone
"""


class Entry(BaseModel):
    """The keywords that were written into one file for one image.

    Attributes:
        uri: The image.
        path: The file, as `uri_of_path` names it.
        before: Hash of the file's bytes without our keywords; None where there was no file.
        after: Hash of its bytes with them.
        added: Our keywords in it.
        patch: Makes the bytes of before out of those of after; None where that would be too large.
        replaced: The entry that this one takes the place of, in case that the file was not written after all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    uri: str
    path: str
    before: str | None
    after: str
    added: Added
    patch: bytes | None
    replaced: Entry | None = None

    def as_written(self, current: str | None) -> Entry | None:
        """Return the entry that holds, by the hash of the file as it is now; None if nothing was written."""
        if current == self.after:
            return self
        if self.replaced is not None and current == self.replaced.after:
            return self.replaced
        return None if current == self.before else self


def hash_of(data: bytes | None) -> str | None:
    return None if data is None else hash_content(data)


class Record:
    """Appends to the record of an output."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.next_part = 1 + max((int(name.partition(".")[0]) for name in _parts(store)), default=0)

    def append(self, kind: str, entries: Sequence[Entry], is_undone: bool = False) -> None:
        """Write one more part, whole or not at all."""
        if not entries:
            return
        rows = [
            (self.next_part, line, kind, entry.uri, is_undone, entry.model_dump_json())
            for line, entry in enumerate(entries)
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), RECORD, strict=True)]
        stream = io.BytesIO()
        pq.write_table(pa.table(arrays, schema=RECORD), stream, compression="zstd")
        self.store.write(f"{layout.TAGS}/{self.next_part:08d}.parquet", stream.getvalue())
        self.next_part += 1


def _parts(store: Store) -> list[str]:
    return [name for name in store.names(layout.TAGS) if name.endswith(".parquet") and name.partition(".")[0].isdigit()]


def create_tagged_view(database: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Create the view `tagged` (kind, uri, entry): what is written in files now, as far as the record knows."""
    for view in ("tagged", "tag_record"):
        database.execute(f"DROP VIEW IF EXISTS {view}")
    create_view(database, "tag_record", store.data_uris(layout.TAGS, _parts(store)), RECORD)
    database.execute(TAGGED)

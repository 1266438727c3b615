"""`mlcls publish`: copy committed runs into a Delta, Iceberg or Lance table at OUT/<format>, each run in one atomic commit.

Resuming and incremental runs read the Parquet fragments only. A table is made from them, and a run that it has already is not added
again: if a driver dies between the two, the next run or `mlcls publish` adds the missing one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pyarrow as pa

from mlcls_ray import registry, schema
from mlcls_ray.errors import UsageError
from mlcls_ray.field_types import TableFormat
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import is_local, path_of_uri, redact_url
from mlcls_ray.table.formats.base import RunRows, Table
from mlcls_ray.table.fragments import fragment_paths, read_fragment
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.records import in_order, read_records, read_successes

_MISREAD = re.compile(r"[\x00-\x1f\x7f#%?\[\]^|\\`\ud800-\udfff]")
"""Characters in an output's name that a library of a table format reads as something else; some then write into another folder."""


def check_format(kind: TableFormat, out: str) -> None:
    """Make sure that the format's package is installed, and that it can name the output.

    Raises:
        UsageError: it is not, or cannot.
    """
    if kind == "parquet":
        return
    misread = _MISREAD.search(path_of_uri(out) if is_local(out) else out)
    if misread:
        raise UsageError(
            f"format {kind} cannot write to '{redact_url(out)}': its library misreads {misread[0]!r} in a name; "
            "give another --out, or --format parquet"
        )
    try:
        registry.load(registry.TABLE_FORMATS[kind])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mlcls_ray"):
            raise
        raise UsageError(f"format {kind} needs the extra '{kind}': pip install 'mlcls-ray[{kind}]'") from None


def open_table(store: Store, kind: TableFormat) -> Table:
    """Open the output's table in a format other than Parquet.

    Raises:
        UsageError: the format's package is not installed.
    """
    check_format(kind, store.root)
    table: Table = registry.load(registry.TABLE_FORMATS[kind])(store)
    return table


def publish(store: Store, kind: TableFormat) -> list[str]:
    """Add the committed runs that the table lacks, oldest first; returns their ids.

    Raises:
        UsageError: the format's package is not installed.
        LeaseError: another process works on one of the runs.
    """
    if kind == "parquet":
        return []
    table = open_table(store, kind)
    published = published_schema(schema.LABEL_TABLE)
    added = []
    successes = read_successes(store)
    for success in in_order(successes, read_records(store, successes)):
        if not success.rows or table.has(success.run_id):
            continue
        with run_lease(store, success.run_id):
            paths = fragment_paths(store, success)
            table.append(RunRows(success.run_id, published, _batches(store, paths, published)))
        added.append(success.run_id)
    return added


def published_schema(fragment: pa.Schema) -> pa.Schema:
    """Return the fragment's schema in types that all three formats have: int16 becomes int32.

    `run_number` is null in rows that version 0.1 published.
    """
    return pa.schema(
        [
            pa.field(field.name, _published(field.type), field.nullable or field.name == schema.RUN_NUMBER)
            for field in fragment
        ]
    )


def _published(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_published(kind.value_type))
    return pa.int32() if pa.types.is_int16(kind) else kind


def _batches(store: Store, paths: Iterable[str], published: pa.Schema) -> Iterator[pa.RecordBatch]:
    for path in paths:
        yield from read_fragment(store, path).cast(published).to_batches()

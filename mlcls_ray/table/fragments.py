"""The fragments of a committed run: where they lie, and their rows in today's schema, whichever version wrote them."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import fragment_names
from mlcls_ray.table.records import Success
from mlcls_ray.table.sql import parquet_rows


def fragment_paths(store: Store, success: Success) -> list[str]:
    """Name the files of a committed run.

    They are in `labels`. While a local compaction or relabeling puts them there, they are still in its own folder: fragments have names
    of their own, so a file that is not in the one place is in the other.
    """
    labels, staging = layout.labels_folder(success.run_id), layout.compacted_folder(success.run_id)
    names = [fragment.name for fragment in success.fragments]
    staged: set[str] = set()
    if store.is_local and (waiting := fragment_names(store, success.run_id, staging)):
        staged = set(waiting) - set(fragment_names(store, success.run_id))
    return [f"{staging if name in staged else labels}/{name}" for name in names]


def read_fragment(store: Store, path: str) -> pa.Table:
    """Read a fragment's rows in today's schema.

    Fragments of the first layout hold lists of a fixed size with nulls, which Arrow reads from version 26 on; DuckDB reads them.

    Raises:
        FileNotFoundError: the file does not exist.
        pyarrow.ArrowInvalid: the file is not Parquet.
    """
    if not is_first_layout(fragment_schema(store, path)):
        return as_label_table(store.read_columns(path, None))
    with duckdb.connect() as database:
        store.register_with(database)
        return as_label_table(database.sql(f"FROM {parquet_rows([store.data_uri(path)])}").to_arrow_table())


def fragment_schema(store: Store, path: str) -> pa.Schema:
    """Read the schema from a fragment's footer.

    Raises:
        FileNotFoundError: the file does not exist.
        pyarrow.ArrowInvalid: the file is not Parquet.
    """
    with store.open(path) as stream:
        return pq.read_schema(stream).remove_metadata()


def is_first_layout(actual: pa.Schema) -> bool:
    """Return whether a fragment was written before all runs had one schema."""
    return bool(actual.equals(first_layout(actual)))


def first_layout(actual: pa.Schema) -> pa.Schema:
    """Return the first version's schema: `all_scores` and `embedding` were float16 lists of a fixed size, and `run_number` did not exist.

    Their sizes, and whether there are embeddings, are those of `actual`.
    """
    fields = []
    for field in schema.LABEL_TABLE:
        if field.name in (schema.ALL_SCORES, schema.EMBEDDING):
            position = actual.get_field_index(field.name)
            kind = actual.field(position).type if position >= 0 else None
            if isinstance(kind, pa.FixedSizeListType):
                fields.append(field.with_type(pa.list_(pa.float16(), kind.list_size)))
        elif field.name != schema.RUN_NUMBER:
            fields.append(field)
    return pa.schema(fields)


def as_label_table(rows: pa.Table) -> pa.Table:
    """Convert rows of the label table to its schema: those of the first layout, or those that DuckDB read."""
    if rows.schema.equals(schema.LABEL_TABLE):
        return rows
    columns = []
    for field in schema.LABEL_TABLE:
        if field.name in rows.column_names:
            column = rows.column(field.name)
            columns.append(column if column.type == field.type else column.cast(field.type))
        elif field.name == schema.RUN_NUMBER:
            columns.append(pa.repeat(pa.scalar(0, field.type), len(rows)))
        else:
            columns.append(pa.nulls(len(rows), field.type))
    return pa.table(columns, schema=schema.LABEL_TABLE)

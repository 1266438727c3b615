"""Lists of uris in Parquet files: `url` of a crawl, a column that Spark, pandas or Impala wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.inputs.uri_list import MAX_LENGTH, UriList, choose_column


class ParquetList(UriList):
    """A Parquet file with a column of uris."""

    suffixes = (".parquet",)

    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        table = pq.ParquetFile(stream)
        column = choose_column(table.schema_arrow.names, name, uri_column)
        if not holds_text(table, column):
            kind = table.schema_arrow.field(column).type
            raise UsageError(
                f"list '{name}': the column '{column}' is {kind}; uris are text, and image bytes are binary or a struct with 'bytes'"
            )
        for batch in table.iter_batches(columns=[column]):
            for value in batch.column(0).to_pylist():
                yield value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value or ""


def holds_text(table: pq.ParquetFile, column: str) -> bool:
    """Tell whether a column holds uris: text, or binary values that are text, as Impala and old Hive write it; its first value decides."""
    kind = table.schema_arrow.field(column).type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) or _mean_bytes(table, column) > MAX_LENGTH:
        return is_text(kind)
    for batch in table.iter_batches(batch_size=1, columns=[column], use_threads=False):
        value = batch.column(0)[0].as_py()
        if value:
            return len(value) <= MAX_LENGTH and value.decode("utf-8", "replace").replace("\ufffd", "\n").isprintable()
    return False


def is_text(kind: pa.DataType) -> bool:
    """Tell whether an Arrow type holds uris. A column of nulls only is an empty list."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    )


def _mean_bytes(table: pq.ParquetFile, column: str) -> float:
    """Compute from the footer the mean size of a value in bytes, without compression: of images it is far above that of uris."""
    groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    sizes = [chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column]
    total, rows = float(sum(sizes)), int(table.metadata.num_rows)
    return total / max(1, rows)

"""Parquet files with image bytes (Hugging Face data sets): `train.parquet#image/17` is row 17 of the column `image`."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status, UsageError, one_image
from mlcls_ray.images.decode import decode
from mlcls_ray.storage.fetched import too_large
from mlcls_ray.storage.inputs.base import container_files, has_parts
from mlcls_ray.storage.inputs.containers import Container, Member, keep_newest, quoted_name
from mlcls_ray.storage.inputs.left_out import LeftOut
from mlcls_ray.storage.inputs.parquet_list import holds_text, is_text
from mlcls_ray.storage.inputs.uri_list import COLUMNS
from mlcls_ray.storage.uris import MemberUri, open_filesystem

IMAGE_COLUMNS = ("image", "jpg", "image_bytes", "bytes", "img", "png", "webp")
"""The columns where image bytes are looked for, in this order."""
LONGEST_HASH = 128
"""Bytes: the longest value of a binary column that is taken for a hash where there are uris beside it."""
MAX_GROUP_BYTES = 4 << 30
"""A row group is held in memory as a whole; a larger one is not read."""


class ParquetImages(Container):
    """A Parquet file with a column of image bytes. A file without one is left to the lists of uris."""

    suffixes = (".parquet",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._group_rows: OrderedDict[str, list[int]] = OrderedDict()
        self._columns: OrderedDict[tuple[str, str, int], pa.ChunkedArray] = OrderedDict()

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        """Look into the file; the first match of a glob, or part of a folder, that can be read decides for all."""
        if not super().takes(text, s3, uri_column) and not has_parts(text, self.suffixes, s3):
            return False
        filesystem, path = open_filesystem(text, s3)
        with contextlib.suppress(OSError):
            for file in container_files(filesystem, text, path, self.suffixes):
                with contextlib.suppress(OSError, pa.ArrowException):
                    return _image_column(filesystem, file, uri_column) is not None
        return False  # it is then read as a list of uris, which says what is wrong

    def list_members(
        self, filesystem: fsspec.AbstractFileSystem, path: str, uri_column: str | None, left_out: LeftOut
    ) -> Iterator[Member]:
        """Yield the rows; only the footer is read."""
        column = _image_column(filesystem, path, uri_column)
        if column is None:  # a glob's later file; `takes` has seen the first one only
            raise UsageError(f"'{path}' has no column of image bytes")  # another kind of file, not a damaged one
        with filesystem.open(path, "rb") as stream:
            rows = pq.ParquetFile(stream).metadata.num_rows
        yield from (Member(f"{quoted_name(column)}/{row}") for row in range(rows))

    def read_member(self, filesystem: fsspec.AbstractFileSystem, path: str, member: MemberUri, max_bytes: int) -> bytes:
        column, _, number = member.name.rpartition("/")
        if not number.isdecimal():
            raise ImageError(Status.MISSING, f"'{member.name}' is not a column and a row")
        with self._lock:  # one thread reads the row group that all are waiting for
            values, row = self._row_group(filesystem, path, unquote(column), int(number))
        if row >= len(values):
            raise ImageError(Status.MISSING, f"the file has no row {number}")
        value = values[row].as_py()
        data: bytes | None = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get("path"):
            # A path in a file that others made may name any file of this machine: it is shown, not opened.
            raise ImageError(Status.MISSING, f"the row has no image bytes, only the path '{value['path']}'")
        if data is not None and len(data) > max_bytes:
            raise too_large(len(data), max_bytes)
        return data or b""

    def _row_group(
        self, filesystem: fsspec.AbstractFileSystem, path: str, column: str, row: int
    ) -> tuple[pa.ChunkedArray, int]:
        """Return the column in the row group that has this row of the file, and the row's number in the group."""
        if path not in self._group_rows:
            with filesystem.open(path, "rb") as stream:
                metadata = pq.ParquetFile(stream).metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            if any(group.total_byte_size > MAX_GROUP_BYTES for group in groups):
                raise ImageError(Status.TOO_LARGE, f"a row group of more than {MAX_GROUP_BYTES} bytes")
            keep_newest(self._group_rows, path, [group.num_rows for group in groups])
        for number, group_rows in enumerate(self._group_rows[path]):
            if row < group_rows:
                return self._read_column(filesystem, path, column, number), row
            row -= group_rows
        raise ImageError(Status.MISSING, "the file has no such row")

    def _read_column(
        self, filesystem: fsspec.AbstractFileSystem, path: str, column: str, group: int
    ) -> pa.ChunkedArray:
        key = (path, column, group)
        if key not in self._columns:
            with filesystem.open(path, "rb") as stream:
                table = pq.ParquetFile(stream).read_row_group(group, columns=[column], use_threads=False)
            if column not in table.schema.names:
                raise ImageError(Status.MISSING, f"the file has no column '{column}'")
            keep_newest(self._columns, key, table.column(column))
        self._columns.move_to_end(key)
        return self._columns[key]


def _image_column(filesystem: fsspec.AbstractFileSystem, path: str, uri_column: str | None) -> str | None:
    """Name the column of image bytes (binary, or Hugging Face's struct with `bytes`); None where there is none."""
    with filesystem.open(path, "rb") as stream:
        table = pq.ParquetFile(stream)
        schema = table.schema_arrow
        names = [field.name for field in schema if _holds_bytes(field.type)]
        may_list = [name for name in names if name == uri_column or name.lower() in COLUMNS]
        listed = {name for name in may_list if holds_text(table, name)}
        names = [name for name in names if name not in listed]
        if uri_column:
            return uri_column if uri_column in names else None
        texts = {field.name.lower() for field in schema if field.name in listed or is_text(field.type)}
        chosen = next((name for name in IMAGE_COLUMNS if name in names), names[0] if len(names) == 1 else None)
        if chosen is None or texts.isdisjoint(COLUMNS):
            return chosen
        # Beside uris, binary columns may be hashes and thumbnails: of unclear names the uris win, and others are looked into.
        is_unclear = chosen == "bytes" or chosen not in IMAGE_COLUMNS
        is_other = is_unclear and not texts.isdisjoint(COLUMNS[:2])
        return None if is_other or not _has_images(stream, chosen) else chosen


def _has_images(stream: IO[bytes], column: str) -> bool:
    """Tell whether the first value of a binary column is an image, and not a hash; looked at where there are uris as well."""
    stream.seek(0)
    for batch in pq.ParquetFile(stream).iter_batches(batch_size=1, columns=[column], use_threads=False):
        value = batch.column(0)[0].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data and len(data) > LONGEST_HASH:
            try:
                with one_image():
                    decode(data)
            except ImageError as error:
                return error.status is not Status.NOT_AN_IMAGE
        if data:
            return len(data) > LONGEST_HASH
    return True


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

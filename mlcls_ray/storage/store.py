"""The output store: a folder on local disk or in an object store. Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from glob import has_magic
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.output_files import OutputFiles, arrow_filesystem
from mlcls_ray.storage.uris import is_local, open_filesystem, redact_url
from mlcls_ray.storage.whole import sync_folder

if TYPE_CHECKING:
    import duckdb

TEMPORARY_SUFFIX = ".tmp"
_BEYOND_DUCKDB = re.compile(r"[\ud800-\udfff]|\\.*[*?[]|[*?[].*\\", re.DOTALL)
"""Paths that are not UTF-8, or that hold both a backslash and a wildcard: DuckDB's patterns cannot spell them."""


class Store:
    """Files under a root, by relative names with `/`. A pickled store holds the root only: each worker opens it for itself."""

    def __init__(self, root: str, s3: S3Options | None = None) -> None:
        self.root = root.rstrip("/") or root
        self.s3 = s3 or S3Options()
        self.is_local = is_local(root)
        self._filesystem, self._base = open_filesystem(self.root, self.s3)
        self._base = self._base.rstrip("/") or "/"
        self._files = OutputFiles(self._base, self._filesystem)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.root, self.s3)

    def uri(self, name: str) -> str:
        """Return a file's full name for people: the root as the user wrote it, and the name."""
        return f"{self.root}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, replacing an older one.

        Local: temporary name, fsync, rename, fsync of the folder. Object store: one put (or one completed multipart upload).
        """
        path = f"{self._base}/{name}"
        if not self.is_local:
            self._filesystem.pipe_file(path, data)
            return
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
        try:
            with open(temporary, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise
        sync_folder(folder)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as JSON, whole or not at all."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def read(self, name: str) -> bytes | None:
        """Read a file; None if it does not exist."""
        try:
            return bytes(self._filesystem.cat_file(f"{self._base}/{name}"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_json(self, name: str) -> Any | None:
        """Read a JSON file; None if it does not exist."""
        data = self.read(name)
        return None if data is None else json.loads(data)

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a seekable stream, so that some columns of a Parquet file can be read without the others."""
        stream: IO[bytes] = self._filesystem.open(f"{self._base}/{name}", "rb")
        return stream

    def read_columns(self, name: str, columns: Sequence[str] | None) -> pa.Table:
        """Read some columns of a Parquet file, or all (None).

        Raises:
            FileNotFoundError: the file does not exist.
            pyarrow.ArrowInvalid: the file is not Parquet.
        """
        with self.open(name) as stream:
            return read_columns(stream, columns)

    def names(self, folder: str) -> list[str]:
        """List the names directly under a folder, sorted, without files that are being written."""
        return [name for name in self._entries(folder) if not _is_temporary(name)]

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        try:
            self._filesystem.rm_file(f"{self._base}/{name}")
        except FileNotFoundError:
            return

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all in it, if it exists."""
        path = f"{self._base}/{name}"
        with contextlib.suppress(FileNotFoundError):
            if self.is_local:
                shutil.rmtree(path)
                return
            try:
                if has_magic(path):  # `rm` would take the name for a pattern, and remove the folders of others
                    raise OSError
                self._filesystem.rm(path, recursive=True)
            except FileNotFoundError:
                raise
            except OSError:
                # Some S3-compatible servers want an MD5 of a request that deletes many files; boto no longer sends one.
                for file in self._filesystem.find(path):
                    self._filesystem.rm_file(file)

    def rename_folder(self, name: str, new_name: str) -> None:
        """Rename a local folder in one step. The new name must be free."""
        old, new = f"{self._base}/{name}", f"{self._base}/{new_name}"
        os.rename(old, new)
        for folder in {os.path.dirname(old), os.path.dirname(new)}:
            sync_folder(folder)

    def leftovers(self, folder: str, older_than_s: float) -> list[str]:
        """List half-written files directly under a local folder, older than `older_than_s` seconds: their writers have died."""
        path = f"{self._base}/{folder}".rstrip("/")
        if not self.is_local or not os.path.isdir(path):
            return []
        before = time.time() - older_than_s
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if _is_temporary(entry.name) and entry.stat().st_mtime < before]
        return [f"{folder}/{name}".lstrip("/") for name in sorted(names)]

    def data_path(self, name: str) -> tuple[str, Any]:
        """Return a path and the filesystem to read it with, as `ray.data.read_parquet` takes them."""
        return name, (arrow_filesystem(self._base) if self.is_local else None) or self._files

    def data_uri(self, name: str) -> str:
        """Return a file's name for DuckDB, once `register_with` was called. Most local files have the path that they have."""
        return f"{self._base}/{name}" if self._is_plain else self._files.name(name)

    def data_uris(self, folder: str, names: Iterable[str] | None = None) -> list[str]:
        """Return the names for DuckDB of files in a folder (by default of all)."""
        return [self.data_uri(f"{folder}/{name}") for name in (self.names(folder) if names is None else names)]

    def register_with(self, database: duckdb.DuckDBPyConnection) -> None:
        """Let a DuckDB connection read this store's files."""
        if not self._is_plain and not database.filesystem_is_registered(self._files.protocol):
            database.register_filesystem(self._files)

    def full_uri(self, name: str) -> str:
        """Return a file's uri for other libraries: an absolute path, or `s3://…`."""
        path = f"{self._base}/{name}"
        return path if self.is_local else str(self._filesystem.unstrip_protocol(path))

    @property
    def _is_plain(self) -> bool:
        """True if DuckDB can read the files by itself, and fast: they are local, and their names can be told from patterns."""
        return self.is_local and not _BEYOND_DUCKDB.search(self._base)

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            UsageError: the store cannot be written.
        """
        probe = f".mlcls-{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        try:
            self.write(probe, b"")
            self.remove(probe)
        except Exception as error:  # each filesystem has its own errors
            raise UsageError(f"output '{redact_url(self.root)}' cannot be written: {error}") from None

    def _entries(self, folder: str) -> list[str]:
        path = f"{self._base}/{folder}".rstrip("/")
        try:
            paths = os.listdir(path) if self.is_local else self._filesystem.ls(path, detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({str(name).rstrip("/").rpartition("/")[2] for name in paths} - {""})


def _is_temporary(name: str) -> bool:
    """Return whether a file is being written, or was left half written."""
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


def read_columns(source: IO[bytes] | pa.NativeFile, columns: Sequence[str] | None) -> pa.Table:
    """Read some columns of a Parquet file, or all (None), by this thread alone.

    Arrow's own threads may outlive the interpreter while they hold a Python stream, and then abort the process at its end (arrow#34314).
    """
    with pq.ParquetFile(source, pre_buffer=False) as file:
        return file.read(columns=columns and list(columns), use_threads=False)


def check_new_target(path: Path | str, option: str = "--save", *, may_be_empty_folder: bool = False) -> None:
    """Refuse to write over an existing file or folder.

    Args:
        path: A local path.
        option: The flag that the user gave it by.
        may_be_empty_folder: Accept a folder that exists and is empty.

    Raises:
        UsageError: the path exists.
    """
    if may_be_empty_folder and os.path.isdir(path) and not os.listdir(path):
        return
    if os.path.lexists(path):
        raise UsageError(f"'{path}' exists already: remove it, or give another {option}")

"""An output's files by their names below it, for libraries that take a path for a pattern or a URL.

DuckDB reads `[`, `*` and `?` as a pattern, and cannot escape them behind a backslash; Ray parses paths as URLs, and makes columns of
folders called `year=2024`. Names below an output are this program's own, and plain.
"""

from __future__ import annotations

import hashlib
from typing import Any

import fsspec
import pyarrow.fs
from fsspec.implementations.dirfs import DirFileSystem


class OutputFiles(DirFileSystem):  # type: ignore[misc]
    """The files under `folder` of another filesystem, as `PROTOCOL://runs/…` and as `runs/…`. The protocol is the folder's own."""

    cachable = False

    def __init__(self, folder: str, fs: fsspec.AbstractFileSystem, **options: Any) -> None:
        super().__init__(folder, fs, **options)
        identity = f"{folder}\0{hash(fs)}"  # fsspec hashes what the filesystem was made with
        self.protocol = f"mlcls-{hashlib.sha256(identity.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"

    def name(self, path: str) -> str:
        """Return the full name of a file, by its path under the folder."""
        return f"{self.protocol}://{path}"

    def glob(self, path: str, **options: Any) -> list[str]:
        """Return the file itself: DuckDB looks each name up as a pattern, and `folder` is none."""
        return [path] if self.exists(path) else []

    def _join(self, path: str | list[str]) -> Any:
        return super()._join(path.removeprefix(f"{self.protocol}://") if isinstance(path, str) else path)


def arrow_filesystem(folder: str) -> pyarrow.fs.FileSystem | None:
    """Open a local folder as a filesystem of its own, which Arrow reads without Python; None where the path is not UTF-8."""
    try:
        folder.encode()
    except UnicodeEncodeError:
        return None
    return pyarrow.fs.SubTreeFileSystem(folder, pyarrow.fs.LocalFileSystem())

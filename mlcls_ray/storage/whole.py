"""Local files and folders that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give the path to write a new file or folder to. It becomes `target` at the end; what fails in between leaves nothing behind.

    Raises:
        OSError: the folder of `target` cannot be written, or `target` is in the way: a folder that holds something.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def replace_file(target: Path, data: bytes, keep_mtime: bool) -> None:
    """Write a file whole or not at all, so that it survives a power cut. It keeps mode, owner and attributes of the file that it replaces.

    Args:
        target: A path, no link.
        data: The new content.
        keep_mtime: Keep the times of the replaced file too.

    Raises:
        OSError: the folder cannot be written, or the disk is full. The old file is as it was.
    """
    with written_whole(target) as temporary, temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        if target.exists():
            _copy_owner(target, temporary)
            shutil.copystat(target, temporary)
            if not keep_mtime:
                os.utime(temporary)
        os.fsync(stream.fileno())
    sync_folder(target.parent)


def _copy_owner(source: Path, target: Path) -> None:
    status = source.stat()
    with contextlib.suppress(PermissionError):  # only the superuser gives files away
        os.chown(target, status.st_uid, status.st_gid)


def sync_folder(folder: str | Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

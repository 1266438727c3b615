"""Write planned changes of files in batches: the record first, so that nothing is ever written that nobody knows of."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from mlcls_ray.errors import NAMED_FAILURES, ImageError, RunError, UsageError, name_failures, short_message
from mlcls_ray.storage.lease import held_lease
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.storage.whole import replace_file
from mlcls_ray.table import layout
from mlcls_ray.table.tags.keywords import Added, LeftAloneError, Tagger
from mlcls_ray.table.tags.patch import apply_patch
from mlcls_ray.table.tags.record import Entry, Record, hash_of

BATCH_FILES, BATCH_BYTES = 200, 64 * 2**20
"""Files whose new bytes are held in memory until the record says what will be written."""
FULL = (errno.ENOSPC, errno.EDQUOT)


class Change(NamedTuple):
    """A file to be written, and the entry about it.

    Attributes:
        target: The file.
        data: Its new bytes. None: it is removed.
        entry: What the record says of it.
        before: The keywords of ours that the file has now.
        after: Those that it gets.
        is_new: The file is another than now. What is undone may never have been written.
    """

    target: Path
    data: bytes | None
    entry: Entry
    before: Added
    after: Added
    is_new: bool = True


Notice = Callable[[Change], None]


class Summary:
    """Counts of what was done, and the failures by file."""

    def __init__(self) -> None:
        self.changed = self.unchanged = self.failed = 0
        self.failures: list[str] = []
        """The first of them."""

    def fail(self, name: str, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else short_message(error)
        self.failed += 1
        if len(self.failures) < NAMED_FAILURES:
            self.failures.append(f"{redact_url(name)}: {reason}")

    def raise_failures(self, what: str) -> None:
        """Raise a RunError that names the first failures, if there are any."""
        if self.failed:
            raise RunError(f"{self.failed:,} {what}: {name_failures(self.failures, self.failed)}")


class Writer:
    """Collects changes, and writes them in batches: first the record, then the files. Of what is undone, first the files."""

    def __init__(
        self,
        store: Store,
        kind: str,
        tagger: Tagger,
        notice: Notice | None,
        summary: Summary | None = None,
        is_undone: bool = False,
    ) -> None:
        self.record = Record(store)
        self.kind = kind
        self.tagger = tagger
        self.notice = notice
        self.summary = summary or Summary()
        self.is_undone = is_undone
        self.batch: dict[Path, Change] = {}
        self.size = 0

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Count a file that is left as it is, and go on."""
        try:
            yield
        except (LeftAloneError, ImageError, OSError) as error:
            self.summary.fail(name, error)

    def read(self, target: Path) -> bytes | None:
        """Read a file as it is once all before is written: two images may share one, as `a.jpg` and `a.png` do `a.txt`."""
        if target in self.batch:
            self.flush()
        if target.exists() and not target.is_file():
            raise LeftAloneError(f"'{target}' is not a file")
        return target.read_bytes() if target.exists() else None

    def take(self, change: Change | None) -> None:
        if change is None:
            self.summary.unchanged += 1
            return
        if self.notice:
            self.notice(change)
            self.summary.changed += change.is_new
            return
        self.batch[change.target] = change
        self.size += len(change.data or b"")
        if len(self.batch) >= BATCH_FILES or self.size >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the batch.

        Raises:
            RunError: the disk is full.
        """
        batch, self.batch, self.size = list(self.batch.values()), {}, 0
        if not self.is_undone:
            self._append([change.entry for change in batch])
        done: list[Entry] = []
        try:
            done.extend(change.entry for change in batch if self._write(change))
        finally:
            if self.is_undone:
                self._append(done)

    def _append(self, entries: Sequence[Entry]) -> None:
        try:
            self.record.append(self.kind, entries, self.is_undone)
        except OSError as error:
            if error.errno in FULL:
                raise self._full(self.record.store.uri(layout.TAGS)) from None
            raise UsageError(
                f"'{self.record.store.uri(layout.TAGS)}' cannot be written, so no file was changed: {error.strerror}"
            ) from None

    def _write(self, change: Change) -> bool:
        try:
            if not change.is_new:
                return True
            if change.data is None:
                change.target.unlink(missing_ok=True)
            else:
                replace_file(change.target, change.data, self.tagger.keeps_mtime)
        except OSError as error:
            if error.errno in FULL:
                raise self._full(os.fspath(change.target.parent)) from None
            self.summary.fail(os.fspath(change.target), error)
            return False
        self.summary.changed += 1
        return True

    def _full(self, folder: str) -> RunError:
        return RunError(
            f"no space is left for '{folder}'. {self.summary.changed:,} files are written and recorded, and the others are as they "
            "were; when there is space, the same command goes on"
        )


def without_ours(tagger: Tagger, current: bytes | None, written: Entry | None) -> bytes | None:
    """Return a file's bytes without our keywords: exactly what they were, unless somebody else has changed the file since."""
    if current is None or written is None:
        return current
    if hash_of(current) == written.after:
        if written.before is None:
            return None
        before = apply_patch(current, written.patch) if written.patch is not None else None
        if hash_of(before) == written.before:
            return before
    return tagger.remove(current, written.added)


def tags_lease(store: Store, notice: Notice | None) -> AbstractContextManager[object]:
    """Keep other writers of an output's tags out while the body runs, unless nothing is written."""
    return nullcontext() if notice else held_lease(store, layout.TAGS_LEASE, f"tags of '{store.root}'")

"""One browser over one output: its index, queries, corrections and pictures, which are made anew when a later run is to be shown."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.explore.browse.corrector import Corrector
from mlcls_ray.explore.browse.index import Index
from mlcls_ray.explore.browse.pictures import Pictures
from mlcls_ray.explore.browse.queries import Queries
from mlcls_ray.storage.store import Store
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.output import open_output
from mlcls_ray.table.records import read_latest

LOOK_S = 10.0
"""Seconds between two looks for a later run."""


class Subject(BaseModel):
    """The output to browse, and the settings for it."""

    model_config = ConfigDict(frozen=True)

    out: str
    s3: S3Options | None = None
    others: tuple[str, ...] = ()
    """Other outputs, whose newest labels can be compared with those of `out`."""
    corrected_by: str = "unknown"
    is_read_only: bool = False
    with_vanished: bool = False
    allow_private_urls: bool = False


@dataclass(frozen=True)
class View:
    """One state of the index, and what works on it."""

    version: str
    """A name that no other index has, of this server or one before it: the numbers of images mean something under it only."""
    index: Index
    queries: Queries
    corrector: Corrector
    pictures: Pictures
    latest_run: str | None

    def close(self) -> None:
        """Remove the index."""
        self.pictures.close()
        self.index.close()


class Session:
    """The current view of an output. Its methods may be called from several threads."""

    def __init__(self, subject: Subject, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the output, and build its index.

        Raises:
            UsageError: there is no committed run, or a file of corrections is damaged.
            RunError: the index does not fit on the disk for temporary files.
        """
        self.subject = subject
        self._clock = clock
        self._lock = threading.Lock()
        self._older: View | None = None
        self.view = self._build()
        self._looked_at, self._is_outdated = clock(), False

    def rebuild(self) -> None:
        """Build the index again, with the runs that were committed since. Requests that are running end on the old one."""
        with self._lock:
            if self._older is not None:
                self._older.close()
            self._older, self.view = self.view, self._build()
            self._is_outdated = False

    def is_outdated(self) -> bool:
        """Return whether a run was committed since the index was built."""
        if self._clock() - self._looked_at > LOOK_S:
            self._looked_at = self._clock()
            latest = _latest_run(self.view.index.table.store)
            self._is_outdated = latest is not None and latest != self.view.latest_run
        return self._is_outdated

    def close(self) -> None:
        """Remove what lies in the temporary folder."""
        for view in filter(None, (self._older, self.view)):
            view.close()

    def _build(self) -> View:
        subject = self.subject
        latest = _latest_run(open_output(subject.out, subject.s3))
        table = open_labels(subject.out, subject.s3, vanished=subject.with_vanished)
        others = {other: open_labels(other, subject.s3) for other in subject.others}
        index = Index(table, others)
        return View(
            secrets.token_hex(8),
            index,
            Queries(index),
            Corrector(index, subject.corrected_by, subject.is_read_only),
            Pictures(index, subject.allow_private_urls),
            latest,
        )


def _latest_run(store: Store) -> str | None:
    """Return the run that was committed last; None where `latest.json` does not say so, or is just being repaired."""
    try:
        latest = read_latest(store)
    except UsageError:
        return None
    return latest.run_id if latest else None

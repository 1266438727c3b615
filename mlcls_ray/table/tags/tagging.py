"""`mlcls tag`: write the labels of local images as keywords, and replace those that were written before."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.storage.uris import is_local, parse_member, path_of_uri, uri_of_path
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.search import check_labels
from mlcls_ray.table.tags.captions import CAPTION
from mlcls_ray.table.tags.embedded import embedded_tagger
from mlcls_ray.table.tags.keywords import Added, Keywords, Tagger, make_keywords
from mlcls_ray.table.tags.patch import make_patch
from mlcls_ray.table.tags.record import Entry, create_tagged_view, hash_of
from mlcls_ray.table.tags.selection import Choice, selected_labels
from mlcls_ray.table.tags.writer import Change, Notice, Summary, Writer, tags_lease, without_ours
from mlcls_ray.table.tags.xmp import sidecar_tagger

KINDS: Mapping[str, Callable[[], AbstractContextManager[Tagger]]] = {
    "xmp": lambda: nullcontext(sidecar_tagger()),
    "exif": embedded_tagger,
    "txt": lambda: nullcontext(CAPTION),
}
"""The kinds of files that keywords are written in."""


def tag(table: LabelTable, kind: str, choice: Choice, notice: Notice | None = None) -> Summary:
    """Write labels as keywords, in one of `KINDS`. What was written before is replaced; what others wrote stays.

    Args:
        notice: Is called with each change, and nothing is written.

    Raises:
        UsageError: no image has a label of that name, or ExifTool is missing.
        LeaseError: another process writes tags of this output.
        RunError: the disk is full. What is written is recorded.
    """
    check_labels(table.database, choice.labels)
    with KINDS[kind]() as tagger, tags_lease(table.store, notice):
        create_tagged_view(table.database, table.store)
        writer = Writer(table.store, kind, tagger, notice)
        for uri, labels, entry in selected_labels(table, kind, choice):
            with writer.counted(uri):
                writer.take(_plan(writer, uri, make_keywords(labels, choice.prefix), entry))
        writer.flush()
    return writer.summary


def _plan(writer: Writer, uri: str, keywords: Keywords, entry: Entry | None) -> Change | None:
    """Plan what is written for an image; None if its file is as it should be."""
    tagger, image = writer.tagger, _image_path(uri)
    target = Path(path_of_uri(entry.path)) if entry else Path(os.path.realpath(tagger.find_target(image)))
    current = writer.read(target)
    written = entry and entry.as_written(hash_of(current))
    base = without_ours(tagger, current, written)
    data, added = tagger.add(base, keywords) if keywords.flat else (base, Added())
    if data == current or (written and current and _has_all(tagger, current, keywords, written, added)):
        return None
    planned = Entry(
        uri=uri,
        path=uri_of_path(target),
        before=hash_of(base),
        after=hash_of(data) or "",
        added=added,
        patch=make_patch(base, data) if base is not None and data is not None else None,
        replaced=written and written.model_copy(update={"replaced": None}),
    )
    return Change(target, data, planned, written.added if written else Added(), added)


def _has_all(tagger: Tagger, current: bytes, keywords: Keywords, written: Entry, added: Added) -> bool:
    """Return whether a file that others have changed since still has our keywords, and needs no other."""
    return added == written.added and tagger.add(current, keywords)[1] == Added()


def _image_path(uri: str) -> Path:
    """Return the path of a local image.

    Raises:
        ImageError: it is on another machine, in an archive, or gone.
    """
    if not is_local(uri):
        raise ImageError(Status.UNSUPPORTED, "it is not on this machine, and only local files are tagged")
    path = Path(path_of_uri(uri))
    if path.is_file():
        return path
    if parse_member(uri):
        raise ImageError(Status.UNSUPPORTED, "it is a part of another file, and only files are tagged")
    raise ImageError(Status.MISSING, "it is gone or was moved since it was labeled: label it where it is now")

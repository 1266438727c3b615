"""The keywords of all images as one CSV file, as ExifTool imports it: `exiftool -csv=tags.csv -sep ';' -overwrite_original_in_place …`."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import check_new_target
from mlcls_ray.storage.uris import path_of_uri, readable_path, uri_of_path
from mlcls_ray.storage.whole import written_whole
from mlcls_ray.table import layout
from mlcls_ray.table.export.csv import guard
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.search import check_labels
from mlcls_ray.table.tags.keywords import Added, Keywords, LeftAloneError, Tagger, make_keywords
from mlcls_ray.table.tags.record import Entry, Record, create_tagged_view, hash_of
from mlcls_ray.table.tags.selection import Choice, selected_labels
from mlcls_ray.table.tags.writer import tags_lease

COLUMNS = ("SourceFile", "XMP-dc:Subject", "XMP-lr:HierarchicalSubject")
SEPARATOR = ";"


def tag_in_csv(table: LabelTable, target: Path | None, choice: Choice) -> tuple[Path, int]:
    """Write the keywords of all images, also of remote ones, as one CSV file; returns it and the number of images.

    Args:
        target: The file. Default: tags.csv in a local output.

    Raises:
        UsageError: the file exists and is not one that we wrote, or cannot be written; or the output is remote and `target` is None.
        LeaseError: another process writes tags of this output.
    """
    check_labels(table.database, choice.labels)
    if target is None and not table.store.is_local:
        raise UsageError("--write csv needs --save FILE for an output that is not on this machine")
    path = Path(os.path.abspath(path_of_uri(table.store.uri(layout.TAGS_CSV)) if target is None else target))
    with tags_lease(table.store, None):
        create_tagged_view(table.database, table.store)
        _check_ours(table, path)
        images = (
            (readable_path(uri), make_keywords(labels, choice.prefix))
            for uri, labels, _ in selected_labels(table, "csv", choice)
        )
        try:
            with written_whole(path) as partial:
                count = write_rows(images, partial)
                Record(table.store).append("csv", [_entry(path, partial.read_bytes())])
        except OSError as error:
            raise UsageError(f"'{path}' cannot be written: {error.strerror}") from None
    return path, count


def _entry(path: Path, data: bytes) -> Entry:
    uri = uri_of_path(path)
    return Entry(uri=uri, path=uri, before=None, after=hash_of(data) or "", added=Added(), patch=None)


def _check_ours(table: LabelTable, path: Path) -> None:
    """Refuse to write over a file that we did not write, or that was changed since."""
    query = "SELECT entry FROM tagged WHERE kind = 'csv' AND uri = $uri"
    entries = table.database.execute(query, {"uri": uri_of_path(path)}).fetchall()
    if (
        not entries
        or not path.is_file()
        or Entry.model_validate_json(entries[0][0]).after != hash_of(path.read_bytes())
    ):
        check_new_target(path)


def write_rows(images: Iterable[tuple[str, Keywords]], target: Path) -> int:
    """Write a row for each image and its keywords; returns the number of images.

    Within a keyword `;` becomes a comma. Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    count = 0
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for name, keywords in images:
            if keywords.flat:
                count += 1
                writer.writerow((guard(name), _joined(keywords.flat), _joined(keywords.hierarchical)))
    return count


def _joined(words: Iterable[str]) -> str:
    return guard(SEPARATOR.join(word.replace(SEPARATOR, ",") for word in words))


def _refuse(data: bytes | None, keywords: object) -> tuple[bytes, Added]:
    raise LeftAloneError("it was changed since it was written, and is left as it is")


TABLE = Tagger(lambda image: image, _refuse, lambda data, added: _refuse(data, added)[0], keeps_mtime=False)
"""A table is taken back as a whole, or not at all."""

"""The pages of documents (TIFF, PDF): list them, and read one. Its bytes are a document of one page, which decodes like any image."""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from mlcls_ray.errors import ImageError, one_image
from mlcls_ray.images.formats import DOCUMENT_SUFFIXES, find_pages
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.storage.inputs.base import InputEntry
from mlcls_ray.storage.uris import PageUri, is_local, is_local_file, path_of_uri, without_place, without_query

KEPT = 2
"""Documents that a worker remembers: its rows come in the order of the manifest."""
_HEAD = 1024
"""Bytes by which a document's format is told."""

ReadBytes = Callable[[str], bytes]


def is_document(uri: str) -> bool:
    """Tell by its suffix whether a uri names a document that may have several pages."""
    return without_query(without_place(uri)).lower().endswith(DOCUMENT_SUFFIXES)


def list_pages(entries: Iterable[InputEntry], read: ReadBytes, threads: int) -> Iterator[InputEntry]:
    """Yield each entry, and behind a document its further pages, up to `MAX_PAGES` and one, which says that there are more.

    Documents are looked into side by side by so many threads; `read` reads the bytes of a uri. One that cannot be read stays one entry:
    its row will say why.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="pages") as pool:
        counted = prefetch_map(lambda entry: (entry, _later_pages(entry.uri, read)), entries, pool, threads)
        for entry, numbers in counted:
            yield entry
            for number in numbers:
                yield InputEntry(str(PageUri(entry.uri, number)), None, entry.mtime, _etag(entry))


def _etag(entry: InputEntry) -> str | None:
    """Make the etag of a page: it changes when its document does, and its own size is not known."""
    if entry.etag or entry.mtime is None:
        return entry.etag
    return f"{entry.size_bytes or 0:x}-{int(entry.mtime.timestamp() * 1e6):x}"


def _later_pages(uri: str, read: ReadBytes) -> list[int]:
    """Number the pages behind the first one; none where it is no document, or cannot be read."""
    if not is_document(uri):
        return []
    try:
        with one_image():
            if is_local(uri) and is_local_file(uri):
                return _local_pages(path_of_uri(uri))[1:]
            document = read(uri)
            return find_pages(document).numbers(document)[1:]
    except ImageError:
        return []


def _local_pages(path: str) -> list[int]:
    """Number the pages of a local file, of which no more is read than what says where they are."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a FIFO would wait for ever
    with open(descriptor, "rb"), mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as document:
        return find_pages(document[:_HEAD]).numbers(document)


class PageReader:
    """Reads pages, and remembers the documents that they are in. `read` may be called from several threads."""

    def __init__(self, read: ReadBytes) -> None:
        """`read`: how to read the bytes of a uri."""
        self._read = read
        self._lock = threading.Lock()
        self._documents: OrderedDict[str, _Document] = OrderedDict()

    def read(self, page: PageUri) -> bytes:
        """Read a page as a document of its own.

        Raises:
            ImageError: that of reading the document; `missing`, `too_large`, `unsupported` or `corrupt`.
        """
        with self._lock:
            document = self._documents.setdefault(page.document, _Document())
            self._documents.move_to_end(page.document)
            while len(self._documents) > KEPT:
                self._documents.popitem(last=False)
        with document.lock:  # one thread reads the document that others are waiting for
            if document.content is None:
                document.content = self._read(page.document)
        return find_pages(document.content).take(document.content, page.number)


class _Document:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.content: bytes | None = None

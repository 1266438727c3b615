"""What `predict` takes: paths, URLs, folders, arrays, Pillow images, bytes, documents, and lists of any of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mlcls_ray.config import FetchOptions
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.images.decode import SUFFIXES, decode_pages, to_rgb
from mlcls_ray.images.pdf import MAGIC as PDF_MAGIC
from mlcls_ray.images.pdf import render_pages
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.inputs.local import walk
from mlcls_ray.storage.uris import LOCAL, path_of_uri, scheme_of, uri_of_path

TIFF_MAGIC = (b"II*\0", b"MM\0*")
THREADS = 8


class Source(NamedTuple):
    """One thing to read: a path or URL, or what is in memory already."""

    path: str | None
    content: str | bytes | np.ndarray | Image.Image


class Page(NamedTuple):
    """One image, uint8 [height, width, 3], or why there is none. `page_index` is None where the input is not a document."""

    path: str | None
    page_index: int | None
    image: np.ndarray | None
    error: ImageError | None = None


class _Document(NamedTuple):
    """Encoded pages, not decoded yet: they come one at a time."""

    path: str | None
    content: bytes


def read_inputs(given: Any) -> Iterator[Page]:
    """The images of anything that `predict` takes, lazily and in order; what cannot be read is a page with an error.

    Raises:
        UsageError: something that is no input at all.
    """
    fetcher = Fetcher(FetchOptions())
    with ThreadPoolExecutor(THREADS, thread_name_prefix="predict") as threads:
        for found in prefetch_map(lambda source: _read(source, fetcher), expand(given), threads, THREADS):
            if isinstance(found, _Document):
                yield from _pages(found)
            else:
                yield found


def expand(given: Any) -> Iterator[Source]:
    """Lists, folders and mappings taken apart.

    Raises:
        UsageError: something that is no input at all.
    """
    if isinstance(given, (str, Path)):
        yield from _expand_path(str(given))
    elif isinstance(given, np.ndarray):
        yield from (Source(None, one) for one in (given if given.ndim == 4 else [given]))
    elif isinstance(given, (bytes, Image.Image)):
        yield Source(None, given)
    elif isinstance(given, Mapping):
        if "img" not in given:
            raise UsageError(f"input: a mapping needs the key 'img'; it has {', '.join(map(str, given)) or 'none'}")
        yield from expand(given["img"])
    elif isinstance(given, Iterable):
        for one in given:
            yield from expand(one)
    else:
        raise UsageError(
            f"input: a {type(given).__name__} is none; give a path, URL, folder, array (BGR), Pillow image, bytes, or a list of these"
        )


def _expand_path(text: str) -> Iterator[Source]:
    if scheme_of(text) != LOCAL or not Path(path_of_uri(text)).is_dir():
        yield Source(text, text)
        return
    for found in walk(path_of_uri(text), SUFFIXES | {".pdf"}):
        yield Source(found.uri, found.uri)


def _read(source: Source, fetcher: Fetcher) -> Page | _Document:
    """Never raises an ImageError."""
    try:
        content = source.content
        if isinstance(content, np.ndarray):
            return Page(source.path, None, from_bgr(content))
        if isinstance(content, Image.Image):
            return Page(source.path, None, to_rgb(content))
        if isinstance(content, str):
            is_local = scheme_of(content) == LOCAL
            content = fetcher.fetch(uri_of_path(path_of_uri(content)) if is_local else content).image_bytes
        if content.startswith((PDF_MAGIC, *TIFF_MAGIC)):
            return _Document(source.path, content)
        return Page(source.path, None, next(decode_pages(content)).image)
    except ImageError as error:
        return Page(source.path, None, None, error)


def _pages(document: _Document) -> Iterator[Page]:
    number = -1
    try:
        is_pdf = document.content.startswith(PDF_MAGIC)
        images = render_pages(document.content) if is_pdf else (one.image for one in decode_pages(document.content))
        for number, image in enumerate(images):
            yield Page(document.path, number, image)
    except ImageError as error:
        yield Page(document.path, number + 1, None, error)


def from_bgr(array: np.ndarray) -> np.ndarray:
    """OpenCV's order to RGB, uint8 [H, W, 3]; grey is replicated, alpha dropped, as PaddleX does.

    Raises:
        ImageError: not uint8, or not the shape of an image.
    """
    if array.dtype != np.uint8:
        raise ImageError(Status.UNSUPPORTED, f"an array of {array.dtype}; images are uint8")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            Status.UNSUPPORTED,
            f"an array of shape {list(array.shape)}; images are [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]",
        )
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[:, :, 2::-1])

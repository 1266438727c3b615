"""The inputs of `predict`: paths, URLs, folders, arrays, Pillow images, bytes, documents, and lists of any of these."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from glob import has_magic
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mlcls_ray.config import FetchOptions
from mlcls_ray.errors import ImageError, Status, UsageError, one_image
from mlcls_ray.images.decode import SUFFIXES, decode, decode_pages, to_rgb
from mlcls_ray.images.formats import find_reader
from mlcls_ray.prefetch import prefetch_map
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.inputs.local import matches, walk
from mlcls_ray.storage.inputs.scan import expand_glob
from mlcls_ray.storage.uris import LOCAL, path_of_uri, scheme_of, uri_of_path

DEFAULTS = FetchOptions()


class Source(NamedTuple):
    """One item to read: a path or URL (`content` repeats it), or content that is in memory (`path` is None)."""

    path: str | None
    content: str | bytes | np.ndarray | Image.Image


class Page(NamedTuple):
    """One image, RGB uint8 [H, W, 3], or the error that says why there is none. `page_index` counts the pages of a document, else None."""

    path: str | None
    page_index: int | None
    image: np.ndarray | None
    error: ImageError | None = None


class _Document(NamedTuple):
    """A PDF or TIFF file that is decoded later, a page at a time."""

    path: str | None
    content: bytes


def read_inputs(inputs: Any) -> Iterator[Page]:
    """Read the images of an input of any type, lazily and in order. An unreadable item becomes a page with an error.

    Raises:
        UsageError: an item has a type that is not supported.
    """
    fetcher = Fetcher(DEFAULTS)
    with ThreadPoolExecutor(DEFAULTS.fetch_threads, thread_name_prefix="predict") as threads:
        items = prefetch_map(lambda source: _read(source, fetcher), expand(inputs), threads, DEFAULTS.fetch_threads)
        for item in items:
            if isinstance(item, _Document):
                yield from _pages(item)
            else:
                yield item


def expand(inputs: Any) -> Iterator[Source]:
    """Take lists, folders and mappings apart.

    Raises:
        UsageError: an item has a type that is not supported.
    """
    if isinstance(inputs, (str, Path)):
        yield from _expand_path(str(inputs))
    elif isinstance(inputs, np.ndarray):
        yield from (Source(None, array) for array in (inputs if inputs.ndim == 4 else [inputs]))
    elif isinstance(inputs, (bytes, Image.Image)):
        yield Source(None, inputs)
    elif isinstance(inputs, Mapping):
        if "img" not in inputs:
            raise UsageError(f"input: a mapping needs the key 'img'; it has {', '.join(map(str, inputs)) or 'no key'}")
        yield from expand(inputs["img"])
    elif isinstance(inputs, Iterable):
        for item in inputs:
            yield from expand(item)
    else:
        raise UsageError(
            f"input: type {type(inputs).__name__} is not supported; give a path, URL, folder, BGR array, Pillow image, bytes, "
            "or a list of these"
        )


def _expand_path(text: str) -> Iterator[Source]:
    suffixes = SUFFIXES | {".pdf"}
    try:
        path = os.path.abspath(path_of_uri(text)) if scheme_of(text) == LOCAL and path_of_uri(text) else ""
    except UsageError:
        path = ""  # reading it fails with this message, and its result has it
    if os.path.isdir(path):
        entries = walk(path_of_uri(text), suffixes)
    elif has_magic(path) and not os.path.lexists(path) and next(expand_glob(path), None):
        entries = matches(text, path, suffixes)
    else:
        yield Source(text, text)
        return
    for entry in entries:
        yield Source(entry.uri, entry.uri)


def _read(source: Source, fetcher: Fetcher) -> Page | _Document:
    """Read one item. An ImageError is returned in the page, not raised."""
    try:
        with one_image():
            return _read_source(source, fetcher)
    except ImageError as error:
        return Page(source.path, None, None, error)


def _read_source(source: Source, fetcher: Fetcher) -> Page | _Document:
    content = source.content
    if isinstance(content, np.ndarray):
        return Page(source.path, None, from_bgr(content))
    if isinstance(content, Image.Image):
        return Page(source.path, None, to_rgb(content))
    if isinstance(content, str):
        is_local = scheme_of(content) == LOCAL
        if is_local and not path_of_uri(content):  # it would be the current folder
            raise ImageError(Status.MISSING, "an empty path")
        content = fetcher.fetch(uri_of_path(path_of_uri(content)) if is_local else content).image_bytes
    reader = find_reader(content)
    if reader and reader.pages:
        return _Document(source.path, content)
    return Page(source.path, None, decode(content).image)


def _pages(document: _Document) -> Iterator[Page]:
    images = (page.image for page in decode_pages(document.content))
    for index in count():
        try:
            with one_image():
                image = next(images, None)
        except ImageError as error:
            yield Page(document.path, index, None, error)
            return
        if image is None:
            return
        yield Page(document.path, index, image)


def from_bgr(array: np.ndarray) -> np.ndarray:
    """Convert an array in OpenCV's channel order to RGB uint8 [H, W, 3]. Grey is replicated and alpha dropped, as in PaddleX.

    Raises:
        ImageError: the array is not uint8, or does not have the shape of an image.
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

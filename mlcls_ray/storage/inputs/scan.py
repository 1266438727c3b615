"""Local folders, entry by entry, and what a glob matches in them.

Python's own `glob` passes over a folder that may not be entered without a word, and holds all matches in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from fnmatch import fnmatchcase
from glob import has_magic
from itertools import chain, islice
from typing import NamedTuple

SORTED_ENTRIES = 100_000
"""A folder of up to so many entries is listed in the order of their names. Sorting more would take too much memory."""
ANY_DEPTH = "**"


class Match(NamedTuple):
    """One find of a glob: a path that matches, or a folder on the way that may not be entered, or is gone meanwhile."""

    path: str
    is_closed: bool = False


def scan(folder: str, sorted_entries: int = SORTED_ENTRIES) -> Iterator[os.DirEntry[str]]:
    """Yield a folder's entries: the first `sorted_entries` that the file system returns by name, the rest as they come.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        first = list(islice(entries, sorted_entries))
        first.sort(key=lambda entry: entry.name)
        yield from chain(first, entries)


def expand_glob(pattern: str) -> Iterator[Match]:
    """Yield what an absolute pattern matches, each path once, folder by folder.

    `*`, `?` and `[…]` match within a name, and `**` any number of folders, also none; hidden names only where the pattern has the dot.
    Links to folders are followed, but not back to where the search comes from.

    Raises:
        OSError: the folder that the search starts from cannot be read, or a file system fails.
    """
    parts = pattern.split("/")
    fixed = next((place for place, part in enumerate(parts) if has_magic(part)), len(parts) - 1)
    root = "/".join(parts[:fixed]) or "/"
    if os.path.isdir(root):
        yield from _search(root, tuple(parts[fixed:]), {0}, frozenset([os.path.realpath(root)]))


def _search(folder: str, parts: tuple[str, ...], places: Set[int], targets: frozenset[str]) -> Iterator[Match]:
    """Search one folder. `places`: the parts that a name in it may match. `targets`: where the links on the way led to."""
    for entry in scan(folder):
        is_match, places_below = _step(entry.name, parts, places)
        if is_match:
            yield Match(entry.path)
        if not places_below or not _is_folder(entry):
            continue
        target = os.path.realpath(entry.path) if entry.is_symlink() else ""
        if target and any(f"{earlier}/".startswith(f"{target}/") for earlier in targets):
            continue  # it leads back
        try:
            yield from _search(entry.path, parts, places_below, targets | {target} if target else targets)
        except (PermissionError, FileNotFoundError):
            yield Match(entry.path, is_closed=True)


def _step(name: str, parts: tuple[str, ...], places: Set[int]) -> tuple[bool, Set[int]]:
    """Tell whether a name ends a match, and which parts the names below it may match."""
    last = len(parts) - 1
    is_match, below = False, set()
    for place in _with_no_folder(parts, places):
        part = parts[place]
        if name.startswith(".") and not part.startswith("."):
            continue
        if part == ANY_DEPTH:
            is_match |= place == last
            below.add(place)
        elif fnmatchcase(name, part):
            is_match |= place == last
            below |= {place + 1} if place < last else set()
    return is_match, below


def _with_no_folder(parts: tuple[str, ...], places: Set[int]) -> Set[int]:
    """Add the places behind each `**`, which may also stand for no folder."""
    reached = set(places)
    for place, part in enumerate(parts[:-1]):
        if place in reached and part == ANY_DEPTH:
            reached.add(place + 1)
    return reached


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be entered
        return False

"""Keywords: how labels are spelled for other programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

PARENT = "|"
"""The sign between a keyword and its parent in `lr:hierarchicalSubject`."""
_NOT_TEXT = re.compile("[\x00-\x20\x7f-\x9f\ud800-\udfff\ufffe\uffff\u2028\u2029]+")
"""Blanks, and what XML cannot hold or a line may not."""


class LeftAloneError(Exception):
    """A file that is left as it is. The message says why."""


class Keywords(NamedTuple):
    """The keywords of one image: the `flat` ones, and as `hierarchical` ones with their parents."""

    flat: tuple[str, ...]
    hierarchical: tuple[str, ...]


class Added(BaseModel):
    """The keywords that were added to a file, by the property that holds them. What the file had before is not among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: tuple[str, ...] = ()
    hierarchical: tuple[str, ...] = ()
    iptc: tuple[str, ...] = ()


class Tagger(NamedTuple):
    """The functions that write keywords in one kind of file. All functions work on the bytes of a file, and write nothing.

    Attributes:
        find_target: Names the file that holds the keywords of an image.
        add: Returns the bytes with the keywords that were not there, and these. None: the file does not exist.
        remove: Returns the bytes without those keywords; None if nothing is left in the file.
        keeps_mtime: The file is an image, whose time says when it was taken or edited.
    """

    find_target: Callable[[Path], Path]
    add: Callable[[bytes | None, Keywords], tuple[bytes, Added]]
    remove: Callable[[bytes, Added], bytes | None]
    keeps_mtime: bool


def make_keywords(labels: Iterable[str], prefix: str) -> Keywords:
    """Spell labels as keywords. What stands before the last `|` of the prefix are parents, and in the hierarchical keywords only."""
    parents, bar, start = prefix.rpartition(PARENT)
    words = [word for label in labels if (word := clean(f"{start}{label}"))]
    flat = tuple(dict.fromkeys(words))
    return Keywords(flat, tuple(f"{clean(parents)}{bar}{word.replace(PARENT, '/')}" for word in flat))


def clean(text: str) -> str:
    """Put one blank for blanks, line breaks and control characters: a keyword is one line of text, in every format."""
    return _NOT_TEXT.sub(" ", text).strip()


def missing(keywords: Sequence[str], present: Iterable[str]) -> tuple[str, ...]:
    """Return the keywords that are not among those of a file. Catalogs take `Cat` and `cat` for one."""
    known = {str(word).casefold() for word in present}
    return tuple(word for word in keywords if word.casefold() not in known)

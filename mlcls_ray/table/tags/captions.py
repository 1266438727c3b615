"""Captions: a `.txt` beside the image with its keywords, separated by commas, as trainers of image models read them."""

from __future__ import annotations

import re
from pathlib import Path

from mlcls_ray.table.tags.keywords import Added, Keywords, LeftAloneError, Tagger, clean, missing

_NUMBERS = re.compile(r"[\d\s.eE+-]*")
MOST_BYTES = 2**20


def find_caption(image: Path) -> Path:
    return image.with_suffix(".txt")


def add_to_caption(before: bytes | None, keywords: Keywords) -> tuple[bytes, Added]:
    """Append keywords to a caption. A comma within a keyword becomes a blank.

    Raises:
        LeftAloneError: the file is not one line of text: it is no caption.
    """
    words = tuple(dict.fromkeys(clean(word.replace(",", " ")) for word in keywords.flat))
    if before is None:
        return (", ".join(words) + "\n").encode(), Added(subject=words)
    caption = _read(before)
    new = missing(words, (part.strip() for part in caption.split(",")))
    if not new:
        return before, Added()
    body = caption.rstrip()
    separator = ("" if body.endswith(",") else ",") + " " if body else ""
    return (body + separator + ", ".join(new) + caption[len(body) :]).encode(), Added(subject=new)


def remove_from_caption(data: bytes, added: Added) -> bytes | None:
    """Take keywords out of a caption; None if there was nothing else in it.

    Raises:
        LeftAloneError: the file is not one line of text: it is no caption.
    """
    caption = _read(data)
    body = caption.rstrip()
    kept, left = [], list(added.subject)
    for part in body.split(","):
        if part.strip() in left:
            left.remove(part.strip())
        else:
            kept.append(part)
    text = ",".join(kept).strip()
    return (text + caption[len(body) :]).encode() if text else None


CAPTION = Tagger(find_caption, add_to_caption, remove_from_caption, keeps_mtime=False)


def _read(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise LeftAloneError("it is not text in UTF-8") from None
    if len(data) > MOST_BYTES or len(text.splitlines()) > 1:
        raise LeftAloneError("it is not a caption: it has several lines")
    if text.strip() and _NUMBERS.fullmatch(text):
        raise LeftAloneError("it is not a caption: it holds numbers, as boxes of YOLO do")
    return text

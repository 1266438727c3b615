"""The entries of a label map: read from a file with their lines, and checked.

YAML is read event by event, not into a tree: an entry keeps its line, a label that stands twice is seen, and nothing is constructed.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mlcls_ray.errors import short_message
from mlcls_ray.terminal import plain

OTHERS = "default"
"""The key for the labels that are not named, as in a file of thresholds."""
MAX_BYTES = 4_000_000
MAX_ENTRIES = 50_000
MAX_LENGTH = 200
"""Characters of a label."""
TEXT, NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
KINDS = {"tag:yaml.org,2002:bool": "true or false", "tag:yaml.org,2002:timestamp": "a date", NULL: "null"}
"""The kinds of value that YAML takes a word without quotes for; anything else is a number."""
MARKUP = "<>"


class Entry(NamedTuple):
    """One line of a map: a class and its label, None for a class that gives none. `place` says where it stands, for messages."""

    name: Any
    label: Any
    place: str = ""


def read_entries(path: str) -> list[Entry]:
    """Read the entries of a YAML or JSON file.

    Raises:
        ValueError: it cannot be read, is too large, or is no mapping from text to text or null.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes: it is not a label map")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid: {short_message(error)}") from None
    try:
        return _from_json(path, text) if path.endswith(".json") else list(_from_yaml(path, text))
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError) as error:
        hint = f"; write {OTHERS}: null for the labels that are not named" if "\n*" in f"\n{text}" else ""
        raise ValueError(f"{path} is not valid: {short_message(error)}{hint}") from None


def check_entries(entries: Sequence[Entry]) -> None:
    """Check names and labels.

    Raises:
        ValueError: names the entry, its place, and the way out.
    """
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{len(entries):,} entries are more than {MAX_ENTRIES:,}")
    first: dict[str, Entry] = {}
    for entry in entries:
        shown = f"{entry.place}{plain(entry.name)}: {plain(entry.label)}"[:MAX_LENGTH]
        if not isinstance(entry.name, str) or not (entry.label is None or isinstance(entry.label, str)):
            raise ValueError(
                f"{shown}: a label is text; write one entry for each label of the model, as in car: vehicle"
            )
        if entry.name in first:
            twice = first[entry.name]
            raise ValueError(
                f"{shown}: '{plain(entry.name)}' is mapped already{f' ({twice.place[:-2]})' if twice.place else ''}"
            )
        first[entry.name] = entry
        if problem := _problem(entry.label):
            raise ValueError(f"{shown}: {problem}")


def check_spellings(labels: Sequence[str]) -> None:
    """Refuse labels that differ in case, spaces or the form of their letters only.

    Raises:
        ValueError: names two of them.
    """
    seen: dict[str, str] = {}
    for label in labels:
        folded = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        other = seen.setdefault(folded, label)
        if other != label:
            raise ValueError(f"'{plain(other)}' and '{plain(label)}' are one label in two spellings: use one of them")


def _problem(label: str | None) -> str | None:
    """Say what is wrong with a label."""
    if label is None:
        return None
    if not label.strip():
        return "the label is empty; write null to drop it"
    if label != label.strip():
        return "the label begins or ends with a space"
    if len(label) > MAX_LENGTH:
        return f"the label has more than {MAX_LENGTH} characters"
    if plain(label) != label:
        return "the label has control characters, which move a terminal's cursor or turn the text around"
    if any(character in label for character in MARKUP):
        return "the label has < or >, which pages take for markup"
    return None


def _from_json(path: str, text: str) -> list[Entry]:
    pairs = json.loads(text, object_pairs_hook=list)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError(f"{path} is not a mapping from labels to labels")
    return [Entry(name, label, f"{path}: ") for name, label in pairs]


def _from_yaml(path: str, text: str) -> Iterator[Entry]:
    events = iter(yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    first = next(
        (event for event in events if not isinstance(event, (yaml.StreamStartEvent, yaml.DocumentStartEvent))), None
    )
    if not isinstance(first, yaml.MappingStartEvent):
        raise ValueError(f"{path} is not a mapping from labels to labels, one a line, as in car: vehicle")
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            break
        place = _place(path, event)
        key, value = _scalar(event, place), _scalar(next(events), place)
        name, label = plain(key.value), plain(value.value)
        if _tag(key) != TEXT:
            raise ValueError(f"{place}YAML takes {name} for {_kind(key)}; quote it: '{name}'")
        if _tag(value) == NULL and not value.value:
            raise ValueError(f"{place}nothing stands behind '{name}:'; write null to drop the label")
        if _tag(value) not in (TEXT, NULL):
            raise ValueError(f"{place}YAML takes {label} for {_kind(value)}; quote it: {name}: '{label}'")
        yield Entry(key.value, None if _tag(value) == NULL else value.value, place)
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            raise ValueError(f"{_place(path, event)}a second document begins; a map is one")


def _place(path: str, event: yaml.Event) -> str:
    return f"{path}, line {event.start_mark.line + 1}: " if event.start_mark else f"{path}: "


def _scalar(event: yaml.Event, place: str) -> yaml.ScalarEvent:
    if not isinstance(event, yaml.ScalarEvent):
        raise ValueError(f"{place}a label is text; write one line for each label of the model, as in car: vehicle")
    return event


def _tag(event: yaml.ScalarEvent) -> str:
    return str(event.tag or _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit))  # type: ignore[no-untyped-call]


def _kind(event: yaml.ScalarEvent) -> str:
    return KINDS.get(_tag(event), "a number")


_RESOLVER = yaml.SafeLoader("")
"""Decides what YAML takes a word for."""

"""Label maps: other names for a model's labels, several labels as one, or none of a label.

A map is parsed once, by one parser, and resolved to one name per class of a model. It is applied after the thresholds
(`labels/select.py`), which are those of the model's classes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.labels.label_map_file import OTHERS, Entry, check_entries, check_spellings, read_entries

if TYPE_CHECKING:
    import numpy as np  # imported where it is used: the command line's help must not wait for it

NO_MAP = "none"
"""The word for no map: `mlcls relabel --map none` takes one away."""


@dataclass(frozen=True)
class ResolvedLabelMap:
    """The label of each class of a vocabulary: `names`; None for a class that gives no label. Classes with one name are one label."""

    vocabulary: tuple[str, ...]
    names: tuple[str | None, ...]

    @property
    def by_class(self) -> Iterator[tuple[str, str | None]]:
        """Each class with its label."""
        return zip(self.vocabulary, self.names, strict=True)

    @property
    def changed(self) -> dict[str, str | None]:
        """The classes whose label is not their own name, with it: what `run.json` keeps."""
        return {name: label for name, label in self.by_class if name != label}

    @property
    def id(self) -> str:
        """A short name for what is changed: a hash; empty if nothing is."""
        if not self.changed:
            return ""
        return "map-" + hashlib.sha256(json.dumps(self.changed, sort_keys=True).encode()).hexdigest()[:12]

    def added_to(self, threshold_id: str) -> str:
        """Return the id of thresholds together with this map: what the labels of a row were selected with."""
        return f"{threshold_id}+{self.id}" if self.id else threshold_id

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that images can have, in the order of the classes."""
        return tuple(dict.fromkeys(name for name in self.names if name is not None))

    @cached_property
    def groups(self) -> np.ndarray | None:
        """The place of each class's label in `labels`, int32 [C], -1 for a class that gives none; None where nothing is changed."""
        import numpy as np

        places: dict[str | None, int] = {name: place for place, name in enumerate(self.labels)}
        return np.array([places.get(name, -1) for name in self.names], np.int32) if self.changed else None


class LabelMap(BaseModel):
    """A map as a user writes it: labels by class name, null for a class that gives none; or the path of a file with them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[str, str | None] = Field(default_factory=dict, description="Labels by class name; null: none")
    others: Literal["keep", "drop"] = Field(default="keep", description="What becomes of classes that are not named.")
    _places: dict[str, str] = PrivateAttr(default_factory=dict)
    """The file and line of each entry, for messages."""

    @model_validator(mode="wrap")
    @classmethod
    def _parse(cls, value: Any, make: ModelWrapValidatorHandler[LabelMap]) -> LabelMap:
        if isinstance(value, LabelMap):
            return value
        fields, entries = _to_fields(value)
        made = make(fields)
        made._places.update({entry.name: entry.place for entry in entries})
        return made

    def only(self, vocabulary: Sequence[str]) -> LabelMap:
        """Leave out what names the classes of other models."""
        names = set(vocabulary)
        return self.model_copy(update={"labels": {name: to for name, to in self.labels.items() if name in names}})

    def resolve(self, vocabulary: Sequence[str], known: Sequence[str] = (), field: str = "map") -> ResolvedLabelMap:
        """Find the label of each class of `vocabulary`.

        Args:
            vocabulary: The model's classes.
            known: The classes of all models of the job: a map may name those of another one. Default: the vocabulary.
            field: The name of the map in messages.

        Raises:
            UsageError: a class that no model has; two spellings of a label; or no label is left.
        """
        classes = known or vocabulary
        are_known = set(classes)
        unknown = next((name for name in self.labels if name not in are_known), None)
        if unknown is not None:
            place = self._places.get(unknown, "")
            raise UsageError(f"{field}: {place}the model has no label '{unknown}'{suggest(unknown, classes)}")
        names = tuple(self.labels.get(name, name if self.others == "keep" else None) for name in vocabulary)
        resolved = ResolvedLabelMap(tuple(vocabulary), names)
        if not resolved.labels:
            raise UsageError(f"{field}: every label of the model is dropped; keep at least one")
        if resolved.changed:
            try:
                check_spellings(resolved.labels)
            except ValueError as error:
                raise UsageError(f"{field}: {error}") from None
        return resolved


def parse_label_map(value: Any, field: str = "map") -> LabelMap:
    """Parse a map in any of these forms.

    - None, or the word `none`: no map
    - a mapping from class names to labels; null (None) drops a class, and `default: null` those that are not named
    - a path of a YAML or JSON file that holds such a mapping

    Raises:
        UsageError: the file cannot be read, or an entry is wrong; names `field`, the file, the line and the way out.
    """
    try:
        return LabelMap.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        names = ".".join([field, *map(str, first["loc"])])
        raise UsageError(f"{names}: {first['msg'].removeprefix('Value error, ')}") from None


def merge_classes(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Take the greatest value of each label's classes: [N, C] → [N, number of labels]. `groups`: those of a map; None: no map."""
    import numpy as np

    if groups is None:
        return values
    return np.stack([values[:, groups == label].max(axis=1) for label in range(groups.max() + 1)], axis=1)


def _to_fields(value: Any) -> tuple[dict[str, Any], list[Entry]]:
    """Turn any form that `parse_label_map` takes into the fields of `LabelMap`; returns the entries too."""
    if value is None or value == NO_MAP:
        return {}, []
    if isinstance(value, Mapping) and isinstance(value.get("labels"), Mapping):
        return dict(value), _checked(_from_mapping(value["labels"]))
    if isinstance(value, Mapping):
        entries = _from_mapping(value)
    elif isinstance(value, (str, os.PathLike)):
        entries = read_entries(os.fspath(value))
    else:
        raise ValueError(f"{value!r} is neither a mapping nor the path of a file")
    labels = {entry.name: entry.label for entry in _checked(entries)}
    if labels.get(OTHERS) is not None:
        raise ValueError(
            f"{OTHERS}: {labels[OTHERS]}: only null can stand there; it drops the labels that are not named"
        )
    others = "drop" if OTHERS in labels else "keep"
    labels.pop(OTHERS, None)
    return {"labels": labels, "others": others}, entries


def _from_mapping(labels: Mapping[Any, Any]) -> list[Entry]:
    return [Entry(name, label) for name, label in labels.items()]


def _checked(entries: list[Entry]) -> list[Entry]:
    check_entries(entries)
    return entries

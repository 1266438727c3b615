"""Thresholds: parsed once, by one parser, and resolved to one number per class of a model.

A label is assigned where the score is greater than the threshold; `labels/select.py` is the only place that compares them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mlcls_ray.errors import UsageError, short_message, suggest

if TYPE_CHECKING:
    import numpy as np  # imported where it is used: the command line's help must not wait for it

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
VERSION, FILE_VERSION = "version", 1
"""The key and the value that mark a file written by `mlcls calibrate`."""


@dataclass(frozen=True, eq=False)
class ResolvedThresholds:
    """One threshold per class of a vocabulary: `values` is float32 [C].

    Scores are float32 and numpy compares the two in float32, as PaddleX does: a score of float32(0.7) is not above 0.7.
    """

    values: np.ndarray

    @property
    def id(self) -> str:
        """A short name for these numbers: the number itself if all classes share it, else a hash."""
        if self.values.size and (self.values == self.values[0]).all():
            return f"{self.values[0]:g}"
        import numpy as np

        return "per-class-" + hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()[:12]


class Thresholds(BaseModel):
    """Thresholds as a user writes them: a number, numbers by class, words as in `0.5,person=0.7`, or the path of a file.

    `default` counts for every class (null: the model's own threshold), `classes` are exceptions by class name or class id,
    `per_class` is one number for each class in the vocabulary's order, instead of a default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: Probability | None = Field(default=None, description="For every class; null: the model's own thresholds")
    classes: dict[str, Probability] = Field(default_factory=dict, description="Exceptions by class name or class id")
    per_class: tuple[Probability, ...] | None = Field(
        default=None, description="One number for each class, in the vocabulary's order, instead of `default`"
    )

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return value if isinstance(value, Thresholds) else _to_fields(value)

    def resolve(
        self, vocabulary: Sequence[str], defaults: Sequence[float], field: str = "threshold"
    ) -> ResolvedThresholds:
        """Find the threshold of each class of `vocabulary`. `defaults` are the model's own, [C]; errors name `field`.

        Raises:
            UsageError: a class that the vocabulary does not have, or `per_class` of another length.
        """
        import numpy as np

        if self.per_class is not None and len(self.per_class) != len(vocabulary):
            raise UsageError(f"{field}: {len(self.per_class)} numbers for {len(vocabulary)} classes")
        if self.per_class is not None:
            values = np.array(self.per_class, np.float32)
        elif self.default is not None:
            values = np.full(len(vocabulary), self.default, np.float32)
        else:
            values = np.array(defaults, np.float32)
        class_ids = {name: class_id for class_id, name in enumerate(vocabulary)}
        for key, number in self.classes.items():
            if key in class_ids:
                values[class_ids[key]] = number
            elif key.isdecimal() and int(key) < len(vocabulary):
                values[int(key)] = number
            else:
                raise UsageError(f"{field}: unknown class '{key}'{suggest(key, vocabulary)}")
        return ResolvedThresholds(values)


def parse_thresholds(value: Any, field: str = "threshold") -> Thresholds:
    """Parse thresholds in any of these forms.

    - None: the model's own
    - a number: for every class
    - a mapping from class names or class ids to numbers, with `default` for the other classes
    - numbers, as many as the model has classes
    - a word or a list of words, as on the command line: `0.5,person=0.7`; each is a number, `class=number` or the path of a file
    - a path of a YAML or JSON file that holds a number or a mapping

    Raises:
        UsageError: something is not a number between 0 and 1, or a file cannot be read; names `field` and the value.
    """
    try:
        return Thresholds.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        names = ".".join([field, *map(str, first["loc"])])
        raise UsageError(f"{names}: {first['msg']}") from None


def _to_fields(value: Any) -> dict[str, Any]:
    """Turn any form that `parse_thresholds` takes into the fields of `Thresholds`."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value) if set(value) <= set(Thresholds.model_fields) else _from_mapping(value)
    if isinstance(value, os.PathLike):
        return _from_file(os.fspath(value))
    if isinstance(value, str):
        return _from_words([value])
    if isinstance(value, Sequence) and value and all(isinstance(word, str) for word in value):
        return _from_words(value)
    if hasattr(value, "__len__"):  # a list, tuple or array
        return {"per_class": tuple(_to_number(number, repr(number)) for number in value)}
    return {"default": _to_number(value, repr(value))}


def _from_words(words: Sequence[str]) -> dict[str, Any]:
    default: float | None = None
    classes: dict[str, float] = {}
    for word in [part for text in words for part in _split(text)]:
        name, separator, number = word.rpartition("=")
        if _is_number(word):
            default = _to_number(word, f"'{word}'")
        elif separator and not os.path.isfile(word):
            classes[name.strip()] = _to_number(number, f"'{word}'")
        else:
            fields = _from_file(word)
            default = default if fields["default"] is None else fields["default"]
            classes |= fields["classes"]
    return {"default": classes.pop("default", default), "classes": classes}


def _split(text: str) -> list[str]:
    """Split at commas, but not the name of a file that exists."""
    return [text] if os.path.isfile(text) else [part.strip() for part in text.split(",") if part.strip()]


def _from_mapping(numbers: Mapping[Any, Any], where: str = "") -> dict[str, Any]:
    classes = {str(name): _to_number(value, f"'{name}: {value}'{where}") for name, value in numbers.items()}
    return {"default": classes.pop("default", None), "classes": classes}


def _from_file(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise _error(
            f"'{path}' is neither a number, nor class=number, nor a readable file ({error.strerror})"
        ) from None
    except UnicodeDecodeError as error:
        raise _error(f"{path} is not valid: {short_message(error)}") from None
    try:
        content = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise _error(f"{path} is not valid: {short_message(error)}") from None
    if not isinstance(content, Mapping):
        return {"default": _to_number(content, f"'{content}' in {path}"), "classes": {}}
    if VERSION not in content:
        return _from_mapping(content, f" in {path}")
    if content[VERSION] != FILE_VERSION:
        raise _error(f"{path} is of version {content[VERSION]}; this program reads {FILE_VERSION}")
    default = {"default": content["default"]} if "default" in content else {}
    return _from_mapping({**(content.get("classes") or {}), **default}, f" in {path}")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _to_number(value: Any, shown: str) -> float:
    is_number = _is_number(value) if isinstance(value, str) else isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0.0 <= float(value) <= 1.0:
        raise _error(f"{shown} is not a number between 0 and 1")
    return float(value)


def _error(message: str) -> PydanticCustomError:
    """Make an error whose message pydantic passes on as it is."""
    return PydanticCustomError("threshold", "{message}", {"message": message})

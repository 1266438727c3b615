"""Thresholds: one number, or one per class. A label is kept where its score is greater than (not equal to) it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from mlcls_ray.config import Thresholds
from mlcls_ray.errors import UsageError, short_message, suggest

VERSION, FILE_VERSION = "version", 1
"""Of a thresholds file."""


def resolve(
    thresholds: Thresholds, vocabulary: Sequence[str], model_default: Sequence[float], field: str = "--threshold"
) -> np.ndarray:
    """One threshold per class: float32 [C]. `model_default` are the model's own, [C]; `field` is what an error names.

    Scores are float32 and numpy compares them with these in float32, as PaddleX does (a score of float32(0.7) is
    not above 0.7).

    Raises:
        UsageError: a class that the vocabulary does not have.
    """
    if thresholds.default is None:
        values = np.asarray(model_default, dtype=np.float32).copy()
    else:
        values = np.full(len(vocabulary), thresholds.default, dtype=np.float32)
    positions = {name: position for position, name in enumerate(vocabulary)}
    for key, value in thresholds.classes.items():
        if key in positions:
            values[positions[key]] = value
        elif key.isdecimal() and int(key) < len(vocabulary):
            values[int(key)] = value
        else:
            raise UsageError(f"{field}: unknown class '{key}'{suggest(key, vocabulary)}")
    return values


def threshold_id(values: np.ndarray) -> str:
    """A short name for resolved thresholds float32 [C]: the number if there is one, else a hash of all."""
    if values.size and (values == values[0]).all():
        return f"{values[0]:g}"
    return "per-class-" + hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]


def parse_thresholds(words: Sequence[str]) -> Thresholds:
    """Thresholds from the command line: numbers, `class=number` pairs, or one file (YAML or JSON).

    Words may hold several pairs separated by commas. A file holds a number, or a mapping from class names (and
    `default`) to numbers.

    Raises:
        UsageError: what is not a number between 0 and 1, or a file that cannot be read.
    """
    default: float | None = None
    classes: dict[str, float] = {}
    for word in [part for text in words for part in _split(text)]:
        name, separator, number = word.rpartition("=")
        if separator:
            classes[name.strip()] = _number(number, word)
        elif _is_number(word):
            default = _number(word, word)
        else:
            loaded = load_thresholds(word)
            default = loaded.default if loaded.default is not None else default
            classes |= loaded.classes
    if "default" in classes:
        default = classes.pop("default")
    return Thresholds(default=default, classes=classes)


def _split(text: str) -> list[str]:
    """Commas separate pairs; a file name with a comma in it stays whole."""
    return [part.strip() for part in text.split(",") if part.strip()] if not Path(text).exists() else [text]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _number(word: str, shown: str, field: str = "--threshold") -> float:
    if not _is_number(word) or not 0.0 <= float(word) <= 1.0:
        raise UsageError(f"{field}: '{shown}' needs a number between 0 and 1")
    return float(word)


def load_thresholds(path: str, field: str = "--threshold") -> Thresholds:
    """Thresholds from a YAML or JSON file; `field` is what an error names.

    Raises:
        UsageError: it cannot be read, or holds what is not a number between 0 and 1.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{field}: '{path}' is neither a number, nor class=number, nor a readable file ({error.strerror})"
        ) from None
    try:
        loaded = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{field}: {path} is not valid: {short_message(error)}") from None
    if isinstance(loaded, Mapping) and VERSION in loaded:  # written by `mlcls calibrate`, which says more than numbers
        if loaded[VERSION] != FILE_VERSION:
            raise UsageError(f"{field}: {path} is of version {loaded[VERSION]}; this program reads {FILE_VERSION}")
        loaded = {**(loaded.get("classes") or {}), **({"default": loaded["default"]} if "default" in loaded else {})}
    if isinstance(loaded, Mapping):
        pairs = {str(name): _number(str(value), f"{name}: {value} in {path}", field) for name, value in loaded.items()}
        default = pairs.pop("default", None)
        return Thresholds(default=default, classes=pairs)
    return Thresholds(default=_number(str(loaded), f"{loaded} in {path}", field))

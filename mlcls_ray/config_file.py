"""Configurations from YAML files, from the command line, and back to commented YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mlcls_ray.config import RENAMED, LabelJob
from mlcls_ray.errors import UsageError, name_failures, short_message, suggest

ConfigT = TypeVar("ConfigT", bound=BaseModel)
NO_NAMES: Mapping[str, str] = {}
COMMENT_WIDTH = 120
OWN_ERRORS = ("value_error", "threshold")
"""Raised by validators of ours: the message says it all."""


def load_job(path: Path | None, flags: Mapping[str, Any]) -> LabelJob:
    """Make a labeling job from a YAML file (or none) and flags. Raises as `load_config`."""
    return load_config(LabelJob, path, flags, RENAMED)


def make_job(fields: Mapping[str, Any], where: str = "") -> LabelJob:
    """Make a labeling job from its fields. Raises as `make_config`."""
    return make_config(LabelJob, fields, where, RENAMED)


def load_config(
    model: type[ConfigT], path: Path | None, flags: Mapping[str, Any], renamed: Mapping[str, str] = NO_NAMES
) -> ConfigT:
    """Make a configuration from a YAML file (or none) and flags: flags override the file, the file overrides the defaults.

    `flags` holds what was given on the command line; a value of None counts as not given.

    Raises:
        UsageError: the file cannot be read, or a field is unknown or wrong; names field, value and way out.
    """
    fields = dict(read_mapping(path, "config")) if path else {}
    return make_config(model, _merge(fields, flags), f"config '{path}': " if path else "", renamed)


def make_config(
    model: type[ConfigT], fields: Mapping[str, Any], where: str = "", renamed: Mapping[str, str] = NO_NAMES
) -> ConfigT:
    """Make a configuration from its fields. `renamed` maps old names of fields to today's.

    Raises:
        UsageError: a field is unknown or wrong; the message begins with `where`.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise UsageError(where + describe(error, model, renamed)) from None


def read_mapping(path: Path, what: str) -> Mapping[str, Any]:
    """Read a YAML file that holds a mapping; messages call it `what`.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} '{path}' cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} '{path}' is not valid YAML: {short_message(error)}") from None
    if not isinstance(loaded, Mapping):
        raise UsageError(f"{what} '{path}' is not a mapping of fields")
    return loaded


def describe(error: ValidationError, model: type[BaseModel], renamed: Mapping[str, str] = NO_NAMES) -> str:
    """Describe the problems of a configuration in one line: of each the field, its value, and a way out."""
    problems: list[str] = []
    details = error.errors()
    while details:
        first = details[0]
        same = [detail for detail in details if _is_alternative(first, detail, model)] or [first]
        problems.append(_problem(same, model, renamed))
        details = [detail for detail in details if all(detail is not other for other in same)]
    return name_failures(problems)


def _is_alternative(first: ErrorDetails, other: ErrorDetails, model: type[BaseModel]) -> bool:
    """Tell whether two problems are one: of a union, pydantic reports each of its members, under a name of its own."""
    place = first["loc"][:-1]
    is_own = first["type"] in (*OWN_ERRORS, "extra_forbidden", "missing") or bool(_fields_at(model, place))
    return not is_own and other["loc"][:-1] == place and other["input"] is first["input"]


def _problem(details: Sequence[ErrorDetails], model: type[BaseModel], renamed: Mapping[str, str]) -> str:
    """Describe one problem; several `details` are the alternatives of a union."""
    first = details[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        if field in renamed:
            return f"'{field}' is called {renamed[field]} now"
        return f"unknown field '{field}'{suggest(str(first['loc'][-1]), _fields_at(model, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{field}: this field is required; {flag_of(field)} or a line in the --config file gives it"
    if first["type"] in OWN_ERRORS:
        message = first["msg"].removeprefix("Value error, ")
        return message if not field or message.startswith(f"{field}:") else f"{field}: {message}"
    if len(details) > 1:
        field = ".".join(map(str, first["loc"][:-1]))
    return f"{field}: {', or '.join(detail['msg'] for detail in details)} (it is {first['input']!r})"


def flag_of(field: str) -> str:
    """The flag of a field: `s3.endpoint_url` is `--s3.endpoint-url`."""
    return "--" + field.replace("_", "-")


def choices(annotation: Any) -> tuple[str, ...]:
    """The words that a field takes, if it takes words from a list only; else nothing."""
    if get_origin(annotation) is Annotated:
        return choices(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    members = [member for member in get_args(annotation) if member is not type(None)]
    if len(members) < len(get_args(annotation)) and len(members) == 1:
        return choices(members[0])
    return ()


def group_of(model: type[BaseModel], field: str) -> type[BaseModel]:
    """The class that brings a field to a model: a group of options, or the model itself."""
    bases = [base for base in reversed(model.__mro__) if issubclass(base, BaseModel) and base is not BaseModel]
    return next(base for base in bases if field in base.model_fields)


def dump_config(config: BaseModel) -> str:
    """Write a configuration as YAML that `--config` takes, with the description of each field as a comment."""
    return "\n".join(_yaml_lines(config, "")) + "\n"


def _yaml_lines(config: BaseModel, indent: str) -> Iterator[str]:
    model = type(config)
    values = config.model_dump(mode="json")
    heading = None
    for name, field in model.model_fields.items():
        group = group_of(model, name)
        if group is not heading and group is not model:
            heading = group
            yield from ([""] if name != next(iter(model.model_fields)) else [])
            yield f"{indent}# --- {(group.__doc__ or group.__name__).splitlines()[0]}"
        yield from (f"{indent}# {line}" for line in textwrap.wrap(_comment(field), COMMENT_WIDTH - len(indent)))
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, indent + "  ")
        else:
            text = yaml.safe_dump({name: values[name]}, allow_unicode=True, width=1000)
            yield from (indent + line for line in text.splitlines())


def _comment(field: FieldInfo) -> str:
    words = ", ".join(choices(field.annotation))
    return " ".join(part for part in (field.description, f"One of: {words}." if words else "") if part)


def _fields_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The names of the fields at a place in a model: of the model itself, or of a group nested in it."""
    for part in place:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)


def _merge(fields: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Put the flags over a file's fields, one by one also in nested groups."""
    merged = dict(fields)
    for name, value in flags.items():
        nested = merged.get(name)
        if isinstance(value, Mapping) and isinstance(nested, Mapping):
            merged[name] = _merge(nested, value)
        elif value is not None:
            merged[name] = value
    return merged

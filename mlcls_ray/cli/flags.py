"""Flags of commands, derived from the option models: name, type, choices, default and help of each come from its field."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_args, get_origin

from cyclopts import Group, Parameter
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlcls_ray.config import RENAMED, LabelJob, S3Options
from mlcls_ray.config_file import choices, group_of, make_config
from mlcls_ray.labels.label_map import LabelMap
from mlcls_ray.labels.thresholds import Thresholds

NO_FLAGS: Mapping[str, Any] = MappingProxyType({})
PLAIN_TYPES = (bool, int, float, str, Path)


def flags(
    model: type[BaseModel], only: Collection[str] = (), renamed: Mapping[str, str] = NO_FLAGS, place: int = 10
) -> type[Mapping[str, Any]]:
    """Derive a command's flags from the fields of a model: a dict of those that are given, for `config_file.load_config`.

    `only` names the fields; without it all of them. An old name in `renamed` is a hidden flag, which the model then refuses.
    The help shows the groups of fields in their order, from `place` on.
    """
    groups: dict[type[BaseModel], Group] = {}
    fields: dict[str, Any] = {}
    for name in only or model.model_fields:
        owner = group_of(model, name)
        groups.setdefault(owner, Group(title(owner), help=first_line(owner), sort_key=place + len(groups)))
        nested = {old.partition(".")[2]: new for old, new in renamed.items() if old.startswith(f"{name}.")}
        fields[name] = _flag(model.model_fields[name], groups[owner], nested)
    fields |= {old: Annotated[list[str], Parameter(show=False, negative=())] for old in renamed if "." not in old}
    return TypedDict(f"{model.__name__}Flags", fields, total=False)  # type: ignore[operator, no-any-return]


def description(model: type[BaseModel], field: str) -> str:
    """A field's description, for a parameter that has no flag."""
    return model.model_fields[field].description or ""


def title(group: type[BaseModel]) -> str:
    """A heading for a group of options: `InputOptions` is "Input options"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", group.__name__).capitalize()


def first_line(documented: type) -> str:
    """The first line of a class's docstring."""
    return (documented.__doc__ or "").partition("\n")[0]


def job_fields(inputs: tuple[str, ...], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a job that the command line sets: its flags, and the positional inputs."""
    return {**options, "inputs": inputs} if inputs else options


def s3_options(values: Mapping[str, Any]) -> S3Options | None:
    """Return the S3 options that the flags set; None if there are none."""
    return make_config(S3Options, values, "s3: ") if values else None


def _flag(field: FieldInfo, group: Group, renamed: Mapping[str, str]) -> Any:
    default = field.get_default(call_default_factory=True)
    is_shown = not field.is_required() and default not in (None, "", (), False) and not isinstance(default, BaseModel)
    words = f"{field.description or ''}{f' Default: {default}.' if is_shown and default is not True else ''}"
    kind = _type(field.annotation, renamed)
    negative = None if default is True or (default is None and kind is bool) else ()
    return Annotated[kind, Parameter(help=words.strip(), group=group, negative=negative)]


def _type(annotation: Any, renamed: Mapping[str, str]) -> Any:
    """The type that the command line shows and reads; what is more than a plain value stays text, which the model parses."""
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0], renamed)
    if annotation in PLAIN_TYPES or choices(annotation):
        return annotation
    if get_origin(annotation) is tuple or annotation is Thresholds:
        return list[str]
    if annotation is LabelMap:
        return str
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return flags(annotation, renamed=renamed, place=50)
    members = [member for member in get_args(annotation) if member is not type(None)]
    return _type(members[0], renamed) if len(members) == 1 else str


Inputs = Annotated[str, Parameter(help=description(LabelJob, "inputs"))]
Config = Annotated[
    Path | None, Parameter(help="YAML file with these options. Flags override it; --print-config shows all of them.")
]
PrintConfig = Annotated[
    bool,
    Parameter(
        negative=(), show_default=False, help="Print the whole configuration as commented YAML, and do nothing else."
    ),
]
Verbose = Annotated[bool, Parameter(negative=(), show_default=False, help="Show Ray's own messages, and tracebacks.")]
Output = Annotated[str, Parameter(help="An output folder of `mlcls label`, local or s3://.")]
RunId = Annotated[str | None, Parameter(help="This run only. Default: the newest row of each URI, over all runs.")]
OtherOutputs = Annotated[
    list[str] | None,
    Parameter(
        name="--with",
        negative=(),
        help="Another output folder, whose labels are merged with those of OUT. Can be given several times.",
    ),
]
Vanished = Annotated[
    bool,
    Parameter(
        negative=(),
        show_default=False,
        help="With the images that an incremental run found gone, which are left out otherwise.",
    ),
]
Corrected = Annotated[
    bool,
    Parameter(
        negative=(),
        show_default=False,
        help="With the labels as people corrected them in `mlcls browse`. Default: as the model gave them.",
    ),
]
if TYPE_CHECKING:
    JobFlags = Mapping[str, Any]
    S3Flags = Mapping[str, Any]
else:
    JobFlags = Annotated[
        flags(LabelJob, [name for name in LabelJob.model_fields if name != "inputs"], RENAMED), Parameter(name="*")
    ]
    S3Flags = flags(S3Options)

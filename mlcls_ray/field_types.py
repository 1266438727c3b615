"""The types of options that several groups or commands have: names from the registries, devices, durations, run ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PositiveInt

from mlcls_ray.devices import Device, parse_device
from mlcls_ray.errors import UsageError
from mlcls_ray.registry import ENGINES, TABLE_FORMATS

Precision = Literal["fp32", "tf32", "bf16", "fp16", "int8"]
PrecisionOrAuto = Literal["auto", "fp32", "tf32", "bf16", "fp16", "int8"]
BatchSizeOrAuto = Literal["auto"] | PositiveInt
if TYPE_CHECKING:
    EngineName = str
    EngineOrAuto = str
    TableFormat = str
else:
    EngineName = Literal[tuple(ENGINES)]
    EngineOrAuto = Literal[("auto", *ENGINES)]
    TableFormat = Literal[("parquet", *TABLE_FORMATS)]


def _to_device(value: Any) -> Any:
    try:
        return parse_device(value) if isinstance(value, str) else value
    except UsageError as error:  # pydantic collects ValueErrors only
        raise ValueError(str(error)) from None


ParsedDevice = Annotated[Device, BeforeValidator(_to_device), PlainSerializer(str, return_type=str)]
"""A device as a field: parsed from text such as `gpu:0,1`, and written as the same text."""
FailureLimit = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^(\d{1,2}(\.\d+)?|100)%$")]


def _check_duration(value: str) -> str:
    if not re.fullmatch(r"\d{1,6}[smh]", value):
        raise ValueError(f"'{value}' is not a time: write a number and s, m or h, as in 15m")
    return value


Duration = Annotated[str, AfterValidator(_check_duration)]
"""A number of seconds, minutes or hours, as in `15m`."""
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

"""See scripts/docs: docs/configuration.md from the pydantic models, docs/schema.md from the Arrow schemas and the errors."""

from __future__ import annotations

import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlcls_ray import schema
from mlcls_ray.config import LabelJob, S3Options, Thresholds
from mlcls_ray.errors import FailureLimitError, LeaseError, RunError, RunInterruptedError, Status, UsageError
from mlcls_ray.serve.config import ServeConfig
from mlcls_ray.train.config import Augment, FinetuneJob, Loss

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- Made by scripts/docs from the code: change it there. -->\n"


def kind(annotation: Any) -> str:
    """A type as a person reads it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return kind(get_args(annotation)[0])
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return " \\| ".join(dict.fromkeys(kind(one) for one in get_args(annotation)))
    if origin is tuple:
        return f"list of {kind(get_args(annotation)[0])}"
    if origin is dict:
        return f"{kind(get_args(annotation)[0])}: {kind(get_args(annotation)[1])} pairs"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Status):
        return "status"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true \\| false", "Path": "path"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value in ("", ()):
        return ""
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


def fields(model: type[BaseModel]) -> str:
    lines = ["| field | takes | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(f"| `{name}` | {kind(field.annotation)} | {default(field)} | {field.description or ''} |")
    return "\n".join(lines) + "\n"


def configuration() -> str:
    return f"""{MADE}
# Configuration

A job is a YAML file: `mlcls label --config FILE`. Flags override the file, the file overrides these defaults.
`mlcls label --print-config` shows the whole job as it would run. Unknown fields and wrong values are refused before anything
starts, with the field, the value and a way out.

## A labeling job (`mlcls label`, `mlcls nightly`, `mlcls submit`)
{fields(LabelJob)}
### `threshold`
A number; or a mapping from class names (or class ids) to numbers, with `default` for the others; or the two fields in full:
{fields(Thresholds)}
### `s3`
{fields(S3Options)}
## A service (`mlcls serve`)
{fields(ServeConfig)}
## A fine-tuning (`mlcls finetune`)
{fields(FinetuneJob)}
### `loss`
{fields(Loss)}
### `augment`
{fields(Augment)}"""


def columns(table: pa.Schema) -> str:
    rows = [
        (one.name, str(one.type).replace("[80]", "[C]").replace("[1]", "[D]"), "" if one.nullable else "never null")
        for one in table
    ]
    return (
        "\n".join(["| column | Arrow type | |", "|---|---|---|", *(f"| `{a}` | `{b}` | {c} |" for a, b, c in rows)])
        + "\n"
    )


def schema_page() -> str:
    codes = {0: "done", **{one.exit_code: (one.__doc__ or "").split("\n")[0] for one in (
        RunError, UsageError, FailureLimitError, LeaseError, RunInterruptedError)}}  # fmt: skip
    statuses = "\n".join(f"| `{one}` | {'yes' if one.is_transient else ''} |" for one in Status)
    return (
        f"""{MADE}
# Tables, statuses, exit codes

## The label table: `OUT/runs/RUN_ID/labels/*.parquet`
One row per manifest row. What the columns mean stands in the README. `C` is the number of the model's classes; `embedding` is there with
`embeddings: true` only, `D` is the number of the model's features.
{columns(schema.label_table(80, embedding_size=1))}
## The manifest: `OUT/runs/RUN_ID/manifest/*.parquet`
The frozen list of inputs.
{columns(schema.MANIFEST)}
## Statuses
What is transient is tried again by the next incremental run and by `mlcls retry`.

| status | transient |
|---|---|
{statuses}

## Exit codes
| code | |
|---|---|
"""
        + "\n".join(f"| {code} | {told} |" for code, told in sorted(codes.items()))
        + "\n"
    )


def main() -> None:
    pages = {"configuration.md": configuration(), "schema.md": schema_page()}
    old = [
        name for name, text in pages.items() if not (DOCS / name).exists() or (DOCS / name).read_text("utf-8") != text
    ]
    if "--check" in sys.argv:
        if old:
            sys.exit(f"docs/{', docs/'.join(old)}: not what the code says; run scripts/docs")
        return
    for name in old:
        (DOCS / name).write_text(pages[name], "utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()

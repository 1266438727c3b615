"""The description of the service: OpenAPI for programs, and a page for people that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from jinja2 import Environment, PackageLoader, StrictUndefined

from mlcls_ray.serve.body import OCTETS
from mlcls_ray.serve.wire import PATH, InferRequest, QueryOptions

REFERENCE = "#/components/schemas/"
REQUEST_SCHEMA = InferRequest.model_json_schema(ref_template=REFERENCE + "{model}")
QUERY_SCHEMA = QueryOptions.model_json_schema()
OPERATION = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {name: value for name, value in REQUEST_SCHEMA.items() if name != "$defs"},
            },
            OCTETS: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "parameters": [
        {
            "name": name,
            "in": "query",
            "description": f"{value['description']} For a body that is an image file.",
            "schema": value,
        }
        for name, value in QUERY_SCHEMA["properties"].items()
    ],
}
"""The request, for OpenAPI. FastAPI cannot derive it, because we read the body ourselves to stop at its limits."""


class Field(NamedTuple):
    """A row of the page: a field, a parameter or an answer."""

    name: str
    type: str
    description: str
    is_required: bool = False


class Operation(NamedTuple):
    """One thing that a client can ask for."""

    method: str
    path: str
    summary: str
    fields: tuple[Field, ...]
    parameters: tuple[Field, ...]
    answers: tuple[Field, ...]


def describe(api: FastAPI) -> dict[str, Any]:
    """Make the OpenAPI description, once."""
    if not api.openapi_schema:
        schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
        schema["components"]["schemas"] |= REQUEST_SCHEMA["$defs"]
        api.openapi_schema = schema
    return api.openapi_schema


def render_page(schema: Mapping[str, Any]) -> str:
    """Render a description as HTML."""
    environment = Environment(
        loader=PackageLoader("mlcls_ray.serve"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("docs.html.j2")
    return page.render(info=schema["info"], operations=list(_operations(schema)), path=PATH)


def _operations(schema: Mapping[str, Any]) -> Iterator[Operation]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            body = _json_schema(operation.get("requestBody", {}))
            required = body.get("required", ())
            fields = [
                Field(name, _type(value), value.get("description", ""), name in required)
                for name, value in body.get("properties", {}).items()
            ]
            yield Operation(
                method.upper(),
                path,
                operation["description"],
                tuple(sorted(fields, key=lambda field: not field.is_required)),
                tuple(
                    Field(value["name"], _type(value["schema"]), value["description"])
                    for value in operation.get("parameters", ())
                ),
                tuple(
                    Field(code, _type(_json_schema(answer)), answer["description"])
                    for code, answer in operation["responses"].items()
                ),
            )


def _json_schema(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a body in JSON, of a request or of an answer; empty if there is none."""
    schema: Mapping[str, Any] = message.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _type(schema: Mapping[str, Any]) -> str:
    """Name a JSON schema in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REFERENCE)
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "object":
        return f"mapping to {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))

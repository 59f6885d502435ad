"""The API, for people: the same document that `/api/v1/openapi.json` answers with, as one page."""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

from django.http import HttpRequest, HttpResponse

from control.api.openapi import describe
from control.console.pages import page, show

_BOUNDS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "{} characters or more",
    "maxLength": "at most {} characters",
    "minItems": "{} or more",
    "maxItems": "at most {}",
}


class Field(NamedTuple):
    """A field of a schema, or a parameter.

    Attributes:
        name, kind: What it is called, and what it is.
        required: It must be there.
        bounds: What it may be.
        schema: Name of the schema of its parts, if it has any.
    """

    name: str
    kind: str
    required: bool
    bounds: str
    schema: str


class Operation(NamedTuple):
    """One method of one address."""

    method: str
    path: str
    summary: str
    roles: str
    parameters: tuple[Field, ...]
    body: str
    answers: tuple[tuple[str, str, str], ...]  # status, media type, name of the schema or its kind


class Schema(NamedTuple):
    """A named schema."""

    name: str
    text: str
    fields: tuple[Field, ...]


@page("clients.view_client")
def reference(request: HttpRequest) -> HttpResponse:
    """Show the API."""
    return show(request, "reference", "API reference", **read_description())


@cache
def read_description() -> dict[str, Any]:
    """Return the description of the API as its page shows it."""
    document = describe()
    groups: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(path, method, operation))
    schemas = [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return {"groups": groups, "schemas": schemas, "version": document["info"]["version"], "base": "/api/v1"}


def _operation(path: str, method: str, operation: dict[str, Any]) -> Operation:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    answers = tuple(
        (status, kind, _named(content.get("schema", {})) or _kind(content.get("schema", {})))
        for status, answer in operation["responses"].items()
        for kind, content in answer["content"].items()
    )
    parameters = tuple(
        _field(parameter["name"], parameter["schema"], required=parameter.get("required", False))
        for parameter in operation["parameters"]
    )
    return Operation(
        method.upper(),
        path,
        operation["summary"].replace("`", ""),
        operation["description"],
        parameters,
        _named(body),
        answers,
    )


def _schema(name: str, schema: dict[str, Any]) -> Schema:
    required = set(schema.get("required", ()))
    fields = tuple(
        _field(field, part, required=field in required)
        for field, part in schema.get("properties", {}).items()
    )
    text = schema.get("description", schema.get("title", "")).partition("\n")[0]
    return Schema(name, text if text != name else "", fields)


def _field(name: str, schema: dict[str, Any], *, required: bool) -> Field:
    return Field(name, _kind(schema), required, _bounds(schema), _named(schema))


def _named(schema: dict[str, Any]) -> str:
    """Return the name of the schema that this one refers to, whether alone, in a list or as one of several."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    rows = schema.get("properties", {}).get("results")
    inner = [
        *([rows] if rows else []),
        *schema.get("anyOf", ()),
        *([schema["items"]] if "items" in schema else []),
    ]
    return next((named for part in inner if isinstance(part, dict) and (named := _named(part))), "")


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _named(schema)
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "const" in schema:
        return repr(schema["const"]).replace("'", '"')
    if "enum" in schema:
        return " · ".join(str(value) for value in schema["enum"] if value is not None)
    kind = schema.get("type", "any value")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if text == "array" and "items" in schema:
        return f"list of {_kind(schema['items'])}"
    return f"{text} ({schema['format']})" if "format" in schema else text


def _bounds(schema: dict[str, Any]) -> str:
    """Return the bounds of a value; those of its items stand with the items' own schema or are said here."""
    parts = [text.format(schema[name]) for name, text in _BOUNDS.items() if name in schema]
    if "pattern" in schema:
        parts.append(f"pattern {schema['pattern']}")
    for inner in schema.get("anyOf", ()):
        parts += [bounds] if (bounds := _bounds(inner)) else []
    return ", ".join(parts)

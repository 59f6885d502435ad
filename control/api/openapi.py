"""The API's description of itself (OpenAPI 3.1.1), made from what it is made of: routes, rights, closed schemas and shapes.

Nothing is said twice: a summary is the first sentence of a method's docstring, a body's schema is the one that reads the body. What a
view cannot be asked, it says in `speaks`.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Final, NamedTuple

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from appliance import __version__
from appliance.core.schema import Closed
from control.api import etags, idempotency
from control.api.permissions import needed_right_of
from control.api.problems import CONTENT_TYPE
from control.operators.roles import Role, may

VERSION: Final = "3.1.1"
JSON: Final = "application/json"
_REFERENCE: Final = "#/components/schemas/{model}"
_PART: Final = re.compile(r"\(\?P<(\w+)>((?:[^()]|\([^()]*\))+)\)")
_PAGING: Final = ("page", "page_size")


class Spoken(NamedTuple):
    """What an action takes and gives, as far as its view does not show it.

    Attributes:
        body: Schema of what it reads.
        query: Schema of its query string.
        answer: What it gives: a shape, a closed schema, an object of some form, or a media type; None: the view's own shape.
        status: Of an answer that is no problem.
        tagged: It comes with an `ETag`; what changes it takes that in `If-Match`.
    """

    body: type[Closed] | None = None
    query: type[Closed] | None = None
    answer: type[serializers.Serializer[Any] | Closed | dict[str, Any]] | str | None = None
    status: int = 200
    tagged: bool = False


class Description(APIView):
    """`/openapi.json`: this description."""

    right = "clients.view_client"
    speaks: ClassVar = {"get": Spoken(answer=dict)}

    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Describe the API."""
        return Response(describe())


@cache
def describe() -> dict[str, Any]:
    """Return the document."""
    from control.api.urls import urlpatterns

    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    for pattern in urlpatterns:
        for path, method, operation in _operations(pattern, schemas):
            paths.setdefault(path, {})[method] = operation
    return {
        "openapi": VERSION,
        "info": {"title": "Sovereign Appliance: control", "version": __version__},
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_PROBLEM: Final = {
    "title": "A problem (RFC 9457)",
    "type": "object",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable; the others are for people"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "the part of the request that is refused"},
        "hint": {"type": "string", "description": "what to do next"},
    },
    "additionalProperties": False,
}


def _operations(pattern: Any, schemas: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    view = getattr(pattern.callback, "cls", None)
    if view is None:
        return
    route = str(pattern.pattern)
    actions = getattr(pattern.callback, "actions", None) or {
        name: name for name in ("get", "post") if hasattr(view, name)
    }
    for method, action in actions.items():
        if method != "head":
            yield _path(route), method, _operation(view, method, action, route, schemas)


def _path(route: str) -> str:
    return "/" + _PART.sub(r"{\1}", route).removeprefix("^").removesuffix("$").removesuffix(r"\Z")


def _operation(view: Any, method: str, action: str, route: str, schemas: dict[str, Any]) -> dict[str, Any]:
    spoken: Spoken = getattr(view, "speaks", {}).get(action, Spoken())
    right = needed_right_of(view, method.upper(), action)
    roles = [role.value for role in Role if may(role, right)]
    documented = getattr(view, action).__doc__ if action not in _SUMMARIES else None
    described: dict[str, Any] = {
        "operationId": f"{view.__name__.removesuffix('View').lower()}_{action}",
        "tags": [_path(route).split("/")[1]],
        "summary": (documented or _SUMMARIES.get(action, "")).strip().partition("\n")[0],
        "description": f"Roles: {', '.join(roles)}.",
        "parameters": [
            *_path_parameters(route),
            *_query_parameters(action, spoken, schemas),
            *_header_parameters(getattr(view, action), spoken),
        ],
        "responses": {
            str(spoken.status): {
                "description": "Done",
                "content": _content(view, action, spoken, schemas),
                **({"headers": {"ETag": {"schema": {"type": "string"}}}} if spoken.tagged else {}),
            },
            "default": {
                "description": "A problem",
                "content": {CONTENT_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}},
            },
        },
    }
    if spoken.body is not None:
        body = _schema_of(spoken.body, schemas)
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    return described


_SUMMARIES: Final = {"list": "List them, a page at a time.", "retrieve": "Return one."}


def _path_parameters(route: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^{pattern}$"},
        }
        for name, pattern in _PART.findall(route)
    ]


def _query_parameters(action: str, spoken: Spoken, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if action == "list" and spoken.answer is None:
        parameters = [
            {"name": name, "in": "query", "schema": {"type": "integer", "minimum": 1}} for name in _PAGING
        ]
    if spoken.query is not None:
        schema = _inlined(spoken.query, schemas)
        required = set(schema.get("required", ()))
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": _as_text(part)}
            for name, part in schema["properties"].items()
        ]
    return parameters


def _header_parameters(method: Any, spoken: Spoken) -> list[dict[str, Any]]:
    headers = []
    if getattr(method, "takes_key", False):
        headers.append(
            (
                idempotency.HEADER,
                False,
                idempotency.PATTERN,
                "repeated, it is answered again and not done again",
            )
        )
    if spoken.tagged and spoken.body is not None:
        headers.append((etags.IF_MATCH, True, etags.PATTERN, "the ETag of what was seen"))
    return [
        {
            "name": name,
            "in": "header",
            "required": required,
            "description": told,
            "schema": {"type": "string", "pattern": pattern},
        }
        for name, required, pattern, told in headers
    ]


def _as_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter, which is left out rather than null."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return {name: value for name, value in kinds[0].items() if name not in {"default", "title"}}


def _content(view: Any, action: str, spoken: Spoken, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(spoken.answer, str):
        return {spoken.answer: {}}
    answer: Any = spoken.answer or getattr(view, "serializer_class", None)
    if answer is None:
        raise TypeError(f"{view.__name__}.{action} does not say what it answers")
    if answer is dict:
        one: dict[str, Any] = {"type": "object"}
    elif issubclass(answer, Closed):
        one = _schema_of(answer, schemas)
    else:
        one = _shape_of(answer, schemas)
    return {JSON: {"schema": _page_of(one) if action == "list" else one}}


def _page_of(one: dict[str, Any]) -> dict[str, Any]:
    url = {"type": ["string", "null"], "format": "uri"}
    return {
        "type": "object",
        "required": ["results"],
        "properties": {
            "count": {"type": "integer"},
            "next": url,
            "previous": url,
            "results": {"type": "array", "items": one},
        },
        "additionalProperties": False,
    }


def _schema_of(schema: type[Closed], schemas: dict[str, Any]) -> dict[str, Any]:
    schemas[schema.__name__] = _inlined(schema, schemas)
    return {"$ref": _REFERENCE.format(model=schema.__name__)}


def _inlined(schema: type[Closed], schemas: dict[str, Any]) -> dict[str, Any]:
    described = schema.model_json_schema(ref_template=_REFERENCE)
    schemas.update(described.pop("$defs", {}))
    return described


def _shape_of(shape: type[serializers.Serializer[Any]], schemas: dict[str, Any]) -> dict[str, Any]:
    fields: Mapping[str, serializers.Field[Any, Any, Any, Any]] = shape().fields
    name = shape.__name__.removesuffix("Shape")
    schemas[name] = {
        "type": "object",
        "description": (shape.__doc__ or "").strip().partition("\n")[0],
        "required": list(fields),
        "properties": {name: _field(shape, name, field) for name, field in fields.items()},
        "additionalProperties": False,
    }
    return {"$ref": _REFERENCE.format(model=name)}


def _field(shape: Any, name: str, field: Any) -> dict[str, Any]:
    if isinstance(field, serializers.SerializerMethodField):
        told = typing.get_type_hints(getattr(shape, f"get_{name}"))["return"]
        kinds = typing.get_args(told) or (told,)
        return {"type": [_TYPES[kind] for kind in kinds]}
    if isinstance(field, serializers.JSONField):
        return {}
    kind = next((name for base, name in _FIELDS if isinstance(field, base)), "string")
    described: dict[str, Any] = {"type": [kind, "null"] if field.allow_null else kind}
    if isinstance(field, serializers.DateTimeField):
        described["format"] = "date-time"
    if isinstance(field, serializers.ChoiceField):
        described["enum"] = [*field.choices, *([None] if field.allow_null else [])]
    return described


_TYPES: Final = {str: "string", bool: "boolean", int: "integer", type(None): "null"}
_FIELDS: Final = ((serializers.BooleanField, "boolean"), (serializers.IntegerField, "integer"))

"""`response_format`: what the text of an answer must be."""

from __future__ import annotations

import re
from typing import Any, Final

from inference.cell.errors import Refusal
from inference.cell.fields import Fields
from inference.engine.grammar import Node
from inference.engine.json_grammar import SchemaError, object_grammar, schema_grammar

_FIELD: Final = "response_format"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z", re.ASCII)


def parse_response_format(fields: Fields) -> Node | None:
    """Return what the answer's text must be, None for any text.

    Raises:
        Refusal: `invalid_value`; `schema_refused` for a schema that answers cannot be held to.
    """
    value = fields.get(_FIELD, {"type": "text"})
    if value == {"type": "text"}:
        return None
    if value == {"type": "json_object"}:
        return object_grammar()
    if isinstance(value, dict) and value.keys() == {"type", "json_schema"} and value["type"] == "json_schema":
        return _schema(value["json_schema"])
    raise Refusal("invalid_value", _FIELD)


def _schema(value: Any) -> Node:
    if not isinstance(value, dict) or not {"name", "schema"} <= value.keys():
        raise Refusal("invalid_value", _FIELD)
    if not value.keys() <= {"name", "schema", "strict", "description"}:
        raise Refusal("invalid_value", _FIELD)
    if not isinstance(value["name"], str) or not _NAME.match(value["name"]):
        raise Refusal("invalid_value", _FIELD)
    if not isinstance(value.get("description") or "", str) or not isinstance(
        value.get("strict") or False, bool
    ):
        raise Refusal("invalid_value", _FIELD)
    try:
        return schema_grammar(value["schema"])
    except SchemaError:
        raise Refusal("schema_refused", _FIELD) from None

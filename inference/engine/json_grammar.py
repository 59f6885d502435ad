"""A JSON Schema as a grammar of the texts that fit it.

The subset that OpenAI's structured outputs have, and recursion. What a grammar cannot hold to is refused by name rather than
ignored: an answer that fits is the promise. Objects have their properties in the order of the schema and no others,
unless `additionalProperties` says so. (JSON Schema 2020-12; RFC 8259; UTF-8 as RFC 3629.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from inference.engine.grammar import (
    NOTHING,
    Choice,
    Node,
    OneOf,
    Repeat,
    Rule,
    Sequence,
    byte_range,
    bytes_of,
    literal,
    optional,
)

MOST_NODES: Final = 20_000
MOST_DEPTH: Final = 32
MOST_REPEATS: Final = 4096  # minItems, maxItems, minLength, maxLength
_MOST_DIGITS: Final = 16

# They describe; they do not constrain.
_ANNOTATIONS: Final = frozenset(
    ["$comment", "$defs", "$id", "$schema", "default", "definitions", "description", "examples", "title"]
)
_KEYWORDS: Final = {
    "object": frozenset(["properties", "required", "additionalProperties"]),
    "array": frozenset(["items", "minItems", "maxItems"]),
    "string": frozenset(["minLength", "maxLength"]),
    "number": frozenset[str](),
    "integer": frozenset[str](),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}


class SchemaError(Exception):
    """A schema that is none, asks for what a grammar cannot hold to, or is too large."""


def schema_grammar(schema: object) -> Node:
    """Return the grammar of the JSON texts that fit a schema, a space or a line break before them.

    Args:
        schema: Decoded JSON.

    Raises:
        SchemaError: Without saying why: a schema is content.
    """
    return Sequence((_SPACE_BEFORE, value_grammar(schema)))


def value_grammar(schema: object) -> Node:
    """Return the grammar of the JSON texts that fit a schema, nothing before them. As `schema_grammar`."""
    return _Builder(schema).root


def members_grammar(members: Mapping[str, Node]) -> Node:
    """Return the grammar of an object with exactly these members, in this order."""
    pairs = [_pair(literal(json.dumps(name).encode()), value) for name, value in members.items()]
    separated = [part for pair in pairs for part in (literal(b","), pair)][1:]
    return _space(literal(b"{"), *separated, literal(b"}"))


def object_grammar() -> Node:
    """Return the grammar of all JSON objects."""
    return Sequence((_SPACE_BEFORE, _OBJECT))


# Room for the layouts that models are used to, and no room to go on with white space for ever.
_SPACE: Final = Choice(
    (
        NOTHING,
        literal(b" "),
        Sequence(
            (literal(b"\n"), Choice((NOTHING, Repeat(bytes_of(" "), 1, 32), Repeat(bytes_of("\t"), 1, 8))))
        ),
    )
)
_SPACE_BEFORE: Final = Choice((NOTHING, literal(b" "), literal(b"\n")))
_CONTINUED: Final = byte_range(0x80, 0xBF)
_HEX: Final = bytes_of("0-9", "a-f", "A-F")
_DIGIT: Final = bytes_of("0-9")


def _space(*parts: Node) -> Node:
    """Return the parts with white space between them."""
    spaced: list[Node] = []
    for part in parts:
        spaced += [part, _SPACE]
    return Sequence(tuple(spaced[:-1]))


_CHARACTER: Final = Choice(
    (
        OneOf(byte_range(0x20, 0x7F).mask & ~bytes_of('"', "\\").mask),
        Sequence((byte_range(0xC2, 0xDF), _CONTINUED)),
        Sequence((byte_range(0xE0, 0xE0), byte_range(0xA0, 0xBF), _CONTINUED)),
        Sequence((OneOf(byte_range(0xE1, 0xEC).mask | byte_range(0xEE, 0xEF).mask), _CONTINUED, _CONTINUED)),
        Sequence((byte_range(0xED, 0xED), byte_range(0x80, 0x9F), _CONTINUED)),
        Sequence((byte_range(0xF0, 0xF0), byte_range(0x90, 0xBF), _CONTINUED, _CONTINUED)),
        Sequence((byte_range(0xF1, 0xF3), _CONTINUED, _CONTINUED, _CONTINUED)),
        Sequence((byte_range(0xF4, 0xF4), byte_range(0x80, 0x8F), _CONTINUED, _CONTINUED)),
        Sequence((literal(b"\\"), bytes_of('"', "\\", "/", "b", "f", "n", "r", "t"))),
        # No surrogates: alone they are no character.
        Sequence((literal(b"\\u"), bytes_of("0-9", "a-c", "e-f", "A-C", "E-F"), _HEX, _HEX, _HEX)),
        Sequence((literal(b"\\u"), bytes_of("d", "D"), bytes_of("0-7"), _HEX, _HEX)),
    )
)


def _text(least: int = 0, most: int | None = None) -> Node:
    return Sequence((literal(b'"'), Repeat(_CHARACTER, least, most), literal(b'"')))


_INTEGER: Final = Sequence(
    (
        optional(literal(b"-")),
        Choice((literal(b"0"), Sequence((bytes_of("1-9"), Repeat(_DIGIT, 0, _MOST_DIGITS - 1))))),
    )
)
_NUMBER: Final = Sequence(
    (
        _INTEGER,
        optional(Sequence((literal(b"."), Repeat(_DIGIT, 1, _MOST_DIGITS)))),
        optional(Sequence((bytes_of("e", "E"), optional(bytes_of("+", "-")), Repeat(_DIGIT, 1, 2)))),
    )
)
_BOOLEAN: Final = Choice((literal(b"true"), literal(b"false")))
_NULL: Final = literal(b"null")


def _array(item: Node, least: int = 0, most: int | None = None) -> Node:
    if most == 0:
        return _space(literal(b"["), literal(b"]"))
    more = Repeat(_space(NOTHING, literal(b","), item), max(0, least - 1), None if most is None else most - 1)
    items = Sequence((_SPACE, item, more))
    return Sequence((literal(b"["), items if least else optional(items), _SPACE, literal(b"]")))


def _pair(name: Node, value: Node) -> Node:
    return _space(name, literal(b":"), value)


_VALUE: Final = Rule()
_ANY_PAIR: Final = _pair(_text(), _VALUE)
_OBJECT: Final = Sequence(
    (
        literal(b"{"),
        optional(Sequence((_SPACE, _ANY_PAIR, Repeat(_space(NOTHING, literal(b","), _ANY_PAIR))))),
        _SPACE,
        literal(b"}"),
    )
)
_VALUE.node = Choice((_OBJECT, _array(_VALUE), _text(), _NUMBER, _BOOLEAN, _NULL))


class _Builder:
    """Makes the grammar of one schema.

    Attributes:
        root: The grammar.
    """

    def __init__(self, schema: object) -> None:
        self._schema = schema
        self._rules: dict[str, Rule] = {}
        self._nodes = 0
        self.root = self._value(schema, 0)

    def _value(self, schema: object, depth: int) -> Node:
        self._count(1)
        if depth > MOST_DEPTH:
            raise SchemaError
        if schema is True or schema == {}:
            return _VALUE
        if not isinstance(schema, dict):
            raise SchemaError
        given = schema.keys() - _ANNOTATIONS
        if given == {"$ref"}:
            return self._reference(schema["$ref"], depth)
        if given == {"anyOf"}:
            return self._any_of(schema["anyOf"], depth)
        kinds = self._kinds(schema, given)
        if {"enum", "const"} & given:
            return self._enumeration(schema, given, kinds)
        if not kinds and not given:
            return _VALUE
        if not kinds or not given <= {"type"}.union(*(_KEYWORDS[kind] for kind in kinds)):
            raise SchemaError
        return Choice(tuple(self._typed(kind, schema, depth) for kind in kinds))

    def _kinds(self, schema: Mapping[str, Any], given: AbstractSet[str]) -> list[str]:
        """Return the types that are allowed; where none is named, those that the keywords speak of."""
        kinds = schema.get("type", [kind for kind, keywords in _KEYWORDS.items() if keywords & given])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not isinstance(kinds, list) or not all(
            isinstance(kind, str) and kind in _KEYWORDS for kind in kinds
        ):
            raise SchemaError
        return kinds

    def _typed(self, kind: str, schema: Mapping[str, Any], depth: int) -> Node:
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            item = self._value(schema.get("items", True), depth + 1)
            return _array(item, *self._bounds(schema, "minItems", "maxItems"))
        if kind == "string":
            return _text(*self._bounds(schema, "minLength", "maxLength"))
        plain: dict[str, Node] = {"number": _NUMBER, "integer": _INTEGER, "boolean": _BOOLEAN, "null": _NULL}
        return plain[kind]

    def _object(self, schema: Mapping[str, Any], depth: int) -> Node:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        more = schema.get("additionalProperties", False)
        if "properties" not in schema and "additionalProperties" not in schema:
            more = True  # "any object" is what is meant
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise SchemaError
        if not all(isinstance(name, str) for name in required) or not set(required) <= properties.keys():
            raise SchemaError
        others: Node | None = None
        if more is not False:
            others = _pair(_text(), self._value(more, depth + 1))
        pairs = [
            (_pair(self._literal(name), self._value(value, depth + 1)), name in required)
            for name, value in properties.items()
        ]
        comma = Sequence((_SPACE, literal(b",")))
        # From the last property to the first: what may follow if something stands before it, and if nothing does.
        after: Node = NOTHING if others is None else Repeat(Sequence((comma, _SPACE, others)))
        first: Node = NOTHING if others is None else optional(Sequence((_SPACE, others, after)))
        for pair, is_required in reversed(pairs):
            self._count(4)
            with_comma, without = Sequence((comma, _SPACE, pair, after)), Sequence((_SPACE, pair, after))
            after = with_comma if is_required else Choice((with_comma, after))
            first = without if is_required else Choice((without, first))
        return Sequence((literal(b"{"), first, _SPACE, literal(b"}")))

    def _reference(self, target: object, depth: int) -> Node:
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            raise SchemaError
        if target not in self._rules:
            rule = self._rules[target] = Rule()
            found: Any = self._schema
            for key in target.split("/")[1:]:
                name = key.replace("~1", "/").replace("~0", "~")
                if not isinstance(found, dict) or name not in found:
                    raise SchemaError
                found = found[name]
            if isinstance(found, dict) and "$ref" in found:
                raise SchemaError  # a reference to a reference may lead to itself
            rule.node = self._value(found, depth + 1)
        return self._rules[target]

    def _any_of(self, options: object, depth: int) -> Node:
        if not isinstance(options, list) or not options:
            raise SchemaError
        return Choice(tuple(self._value(option, depth + 1) for option in options))

    def _enumeration(self, schema: Mapping[str, Any], given: AbstractSet[str], kinds: list[str]) -> Node:
        if not given <= {"type", "enum"} and not given <= {"type", "const"}:
            raise SchemaError
        values = schema["enum"] if "enum" in given else [schema["const"]]
        if not isinstance(values, list) or not values:
            raise SchemaError
        if kinds and not all(any(_is_of(value, kind) for kind in kinds) for value in values):
            raise SchemaError
        return Choice(tuple(self._literal(value) for value in values))

    def _literal(self, value: object) -> Node:
        data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        self._count(len(data))
        return literal(data)

    def _bounds(self, schema: Mapping[str, Any], least: str, most: str) -> tuple[int, int | None]:
        low, high = schema.get(least, 0), schema.get(most)
        for bound in (low, 0 if high is None else high):
            if type(bound) is not int or not 0 <= bound <= MOST_REPEATS:
                raise SchemaError
        if high is not None and high < low:
            raise SchemaError
        return low, high

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise SchemaError


def _is_of(value: object, kind: str) -> bool:
    """Whether a decoded JSON value has this type of JSON Schema."""
    types: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "number": (int, float),
        "integer": (int,),
        "boolean": (bool,),
        "null": (type(None),),
    }
    return type(value) in types[kind]  # bool is an int in Python, not in JSON

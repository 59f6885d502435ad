"""Texts that a schema's grammar lets through, against Python's own JSON and a plain reading of the schema."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from inference.engine import grammar
from inference.engine.grammar import Automaton, GrammarTooComplexError, Rule, Sequence, literal, optional
from inference.engine.json_grammar import SchemaError, object_grammar, schema_grammar

PERSON = {
    "type": "object",
    "title": "A person",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8, "description": "of the person"},
        "age": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 3, None]}, "minItems": 1, "maxItems": 3},
        "friend": {"$ref": "#/$defs/friend"},
        "score": {"anyOf": [{"type": "number"}, {"const": "none"}]},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
    "$defs": {"friend": {"type": "object", "properties": {"of": {"$ref": "#/$defs/friend"}}, "required": []}},
}


def fits(automaton: Automaton, text: str | bytes) -> bool:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    state = automaton.walk(automaton.start, data)
    return state is not None and state.accepting


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"a":1}',
        '{ "a" : [ 1, -2.5e3, "xé\\u00e9😀\\n", null, true, {"b": []} ] }',
        '{\n  "a": {\n    "b": 0\n  }\n}',
        '{"":""}',
        ' {"a":false}',
    ],
)
def test_an_object_is_an_object(text: str) -> None:
    assert isinstance(json.loads(text), dict)
    assert fits(Automaton(object_grammar()), text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '"a"',
        "{",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{"a":01}',
        '{"a":.5}',
        '{"a":1.}',
        '{"a":+1}',
        '{"a":NaN}',
        '{"a":"\n"}',
        '{"a":"\\x"}',
        '{"a":"\\ud800"}',
        '{"a":"\ud800"}',
        '{"a":1} ',
        "{}{}",
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xf5\x80\x80\x80"}',
    ],
)
def test_what_is_no_object_or_has_two_readings_is_not(text: str | bytes) -> None:
    assert not fits(Automaton(object_grammar()), text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name":"Ada","tags":["a"]}', True),
        ('{"name":"Ada","age":null,"tags":["a",3,null]}', True),
        ('{"name":"Ada","age":-7,"tags":["b"],"friend":{"of":{"of":{}}},"score":1e2}', True),
        ('{"name":"Ada","tags":["b"],"score":"none"}', True),
        ('{"name":"Adaäöü😀x","tags":["a"]}', True),  # 8 characters, more bytes
        ('{"name":"Adaäöü😀xy","tags":["a"]}', False),
        ('{"name":"","tags":["a"]}', False),
        ('{"name":"Ada","tags":[]}', False),
        ('{"name":"Ada","tags":["a","a","a","a"]}', False),
        ('{"name":"Ada","tags":["c"]}', False),
        ('{"name":"Ada"}', False),
        ('{"tags":["a"],"name":"Ada"}', False),  # in the order of the schema
        ('{"name":"Ada","tags":["a"],"more":1}', False),
        ('{"name":"Ada","age":1.5,"tags":["a"]}', False),
        ('{"name":"Ada","tags":["a"],"friend":{"of":1}}', False),
    ],
)
def test_a_schema_is_held_to(text: str, expected: bool) -> None:
    assert fits(Automaton(schema_grammar(PERSON)), text) is expected


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (True, "[1]", True),
        ({}, '"x"', True),
        ({"type": "array"}, '[{"a":[]},2]', True),
        ({"type": "array", "maxItems": 0}, "[ ]", True),
        ({"type": "array", "maxItems": 0}, "[1]", False),
        ({"type": "object"}, '{"any":1}', True),
        ({"type": "object", "properties": {}}, '{"any":1}', False),
        ({"additionalProperties": {"type": "integer"}}, '{"any":1,"other":2}', True),
        ({"additionalProperties": {"type": "integer"}}, '{"any":"x"}', False),
        ({"properties": {"a": {}}, "additionalProperties": True}, '{"a":1,"b":2}', True),
        ({"properties": {"a": {}}, "required": ["a"], "additionalProperties": True}, '{"b":2}', False),
        ({"enum": [{"k": ["v"]}]}, '{"k":["v"]}', True),
        ({"const": "a\n"}, '"a\\n"', True),
        ({"type": "string", "enum": ["x"]}, '"x"', True),
    ],
)
def test_what_a_schema_leaves_out_is_read_as_people_mean_it(
    schema: object, text: str, expected: bool
) -> None:
    assert fits(Automaton(schema_grammar(schema)), text) is expected


@pytest.mark.parametrize(
    "schema",
    [
        None,
        3,
        "string",
        [],
        False,
        {"type": "text"},
        {"type": 3},
        {"type": ["string", {}]},
        {"type": "string", "pattern": "a+"},
        {"type": "string", "format": "date"},
        {"type": "integer", "minimum": 0},
        {"type": "string", "items": {}},
        {"type": "string", "minLength": -1},
        {"type": "string", "minLength": True},
        {"type": "string", "maxLength": 10**6},
        {"type": "array", "minItems": 2, "maxItems": 1},
        {"allOf": [{}]},
        {"anyOf": []},
        {"anyOf": {}},
        {"enum": []},
        {"enum": ["x"], "minLength": 1},
        {"type": "integer", "enum": [True]},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": [], "required": []},
        {"type": "object", "properties": {}, "required": ["x"]},
        {"type": "object", "required": [[]]},
        {"enum": ["x" * 30_000]},
        json.loads('{"items":' * 40 + "{}" + "}" * 40),
        {"properties": {f"p{n}": {} for n in range(6000)}},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_what_an_answer_cannot_be_held_to_is_refused(schema: object) -> None:
    with pytest.raises(SchemaError):
        schema_grammar(schema)


def random_text(automaton: Automaton, draw: random.Random, most: int) -> bytes | None:
    """Return a text that the automaton lets through, byte by byte; None if it did not end in time."""
    state, data = automaton.start, bytearray()
    while len(data) < most:
        options = [byte for byte in range(256) if state.mask >> byte & 1]
        if state.accepting and (not options or draw.random() < 0.3):
            return bytes(data)
        # Closing and quoting come more often, or nothing would end.
        closing = [byte for byte in options if byte in b'"}]' or byte in b"al"]
        byte = draw.choice(closing if closing and draw.random() < 0.4 else options)
        after = automaton.step(state, byte)
        assert after is not None
        state = after
        data.append(byte)
    return None


def is_of(value: Any, schema: dict[str, Any]) -> bool:
    """A plain reading of PERSON."""
    friend = value.get("friend", {})
    while "of" in friend:
        friend = friend["of"]
    return (
        value.keys() <= schema["properties"].keys()
        and 1 <= len(value["name"]) <= 8
        and (value.get("age") is None or type(value["age"]) is int)
        and 1 <= len(value["tags"]) <= 3
        and all(tag in ("a", "b", 3, None) for tag in value["tags"])
        and type(value.get("score", 1)) in (int, float, str)
        and friend == {}
    )


def test_whatever_the_grammar_lets_through_is_json_that_fits() -> None:
    draw, texts = random.Random(3), 0
    automaton = Automaton(schema_grammar(PERSON))
    for _ in range(300):
        data = random_text(automaton, draw, 400)
        if data is not None:
            texts += 1
            assert is_of(json.loads(data.decode()), PERSON)
    assert texts > 100


def test_a_grammar_that_grows_too_large_says_so_and_does_not_grow_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grammar, "MOST_FRAMES", 50)
    automaton = Automaton(object_grammar())
    with pytest.raises(GrammarTooComplexError):
        automaton.walk(automaton.start, b'{"a":' * 20)


def test_a_rule_that_begins_with_itself_ends() -> None:
    rule = Rule()
    rule.node = Sequence((optional(literal(b"a")), rule, literal(b"b")))
    with pytest.raises(GrammarTooComplexError):
        Automaton(rule)

"""What is known to have broken engines of this kind, tried on this one (docs/threat-model.md, "Known attacks")."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from engine_bench import Bench

from inference.engine import llama
from inference.engine.grammar import MOST_FRAMES, Automaton, GrammarTooComplexError
from inference.engine.json_grammar import SchemaError, schema_grammar
from inference.engine.sampling import Sampling

HOSTILE_TEXTS = {
    "nothing but control tokens": "<|end|><|assistant|><s></s>" * 10,
    "nul bytes": "\0" * 200,
    "every plane of Unicode": "".join(chr(point) for point in range(0xE000, 0x10FFFF, 9973)),
    "combining marks without a letter": "\u0301" * 200,
    "right to left and back": "\u202e\u202d" * 60,
    "lone surrogates": "\ud800\udfff" * 60,
    "one long word": "a" * 300,
    "byte order marks": "\ufeff" * 100,
}


@pytest.mark.engine
@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS.keys())
def test_a_hostile_text_is_answered_like_any_other(bench: Bench, text: str) -> None:
    stream = bench.runner.open()
    assert isinstance(bench.answer(stream, bench.prompt(text), Sampling(max_tokens=4, temperature=0)), str)
    assert bench.runner.close(stream).verified


@pytest.mark.engine
def test_a_text_that_cannot_fit_never_reaches_the_tokenizer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2025-52566: the tokenizer's own arithmetic, reached by the text of a prompt."""
    from inference.engine.engine import ContextOverflow, Engine

    monkeypatch.setattr(llama.Model, "tokenize", lambda *_args, **_options: pytest.fail("it was tokenised"))
    engine = Engine.__new__(Engine)
    engine._vocabulary, engine._template, engine.context_tokens = bench.vocabulary, bench.template, 512
    with pytest.raises(ContextOverflow):
        engine.prompt_tokens([{"role": "user", "content": "x " * 3_000_000}])
    with pytest.raises(ContextOverflow):
        engine.text_tokens("x " * 3_000_000)


def nested(depth: int, inner: Any, wrap: Any) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


@pytest.mark.parametrize(
    "schema",
    [
        nested(60_000, {}, lambda inner: {"items": inner}),
        nested(500, {"type": "null"}, lambda inner: {"anyOf": [inner, inner]}),
        nested(40, {}, lambda inner: {"type": "array", "minItems": 4096, "maxItems": 4096, "items": inner}),
        {"type": "string", "pattern": "(" * 60_000 + ")" * 60_000},
        {"type": "string", "pattern": "((a{1,4096}){1,4096}){1,4096}"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"enum": [str(number) for number in range(20_000)]},
    ],
    ids=["depth", "doubling", "products", "parentheses", "repetition", "fetch", "file", "words"],
)
def test_a_schema_that_brought_other_parsers_down_is_refused(schema: Any) -> None:
    """ggml-org/llama.cpp 18988, 25283, 26600; llama-cpp-python fetches what `$ref` names."""
    with pytest.raises(SchemaError):
        schema_grammar(schema)


@pytest.mark.parametrize(
    "schema",
    [
        nested(30, {}, lambda inner: {"type": "array", "minItems": 4096, "maxItems": 4096, "items": inner}),
        nested(12, {"type": "string"}, lambda inner: {"anyOf": [inner, {"type": "array", "items": inner}]}),
        {"anyOf": [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}}]},
        {"enum": ["a" * 100 + str(number) for number in range(150)]},
    ],
    ids=["products", "alternatives", "itself", "long words"],
)
def test_a_schema_that_is_taken_stays_within_its_bounds_when_walked(schema: Any) -> None:
    texts = (b"[" * 2000, b'"' + b"a" * 5000, b"[[[[" + b"[]," * 2000)
    automaton = Automaton(schema_grammar(schema))
    for text in texts:
        with contextlib.suppress(GrammarTooComplexError):
            automaton.walk(automaton.start, text)
    assert len(automaton._frames) <= MOST_FRAMES
    # A step is made once for each state and byte that a text has, however often it comes by.
    assert len(automaton._states) <= 1 + sum(map(len, texts))


def test_a_key_that_is_very_long_or_strange_stays_a_key() -> None:
    name = 'a"b\\c\n<|end|>' + "ü" * 100
    automaton = Automaton(schema_grammar({"properties": {name: {"const": 1}}, "required": [name]}))
    state = automaton.walk(automaton.start, json.dumps({name: 1}, ensure_ascii=False).encode())
    assert state is not None
    assert state.accepting

"""Answers held to a grammar, on a model that would say something else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from engine_bench import Bench, text_of

from appliance.core.pin import ToolCalls
from inference.cell.tools import parse_tools
from inference.engine.constraint import Constraint
from inference.engine.grammar import Automaton, literal
from inference.engine.json_grammar import object_grammar, schema_grammar
from inference.engine.sampling import Sampling

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["river", "harbour"]},
        "people": {"type": "integer"},
        "near": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
    },
    "required": ["city", "kind", "people", "near"],
}


def answer(bench: Bench, grammar: Any, **fields: Any) -> tuple[str, str | None]:
    stream = bench.runner.open()
    sampling = Sampling(**{"max_tokens": 200, "temperature": 0.8, "grammar": Automaton(grammar), **fields})
    bench.runner.start(stream, bench.prompt("tell me about the river"), sampling)
    pieces = bench.drain()[stream]
    assert bench.runner.close(stream).verified
    return text_of(pieces), pieces[-1].finish


@pytest.mark.parametrize(
    "fields", [{"temperature": 0.0}, {"seed": 1}, {"seed": 2, "top_k": 40, "top_p": 0.9}]
)
@pytest.mark.parametrize("lookup", [False, True])
def test_a_model_of_random_weights_writes_what_the_schema_says(
    bench: Bench,
    fields: dict[str, Any],
    lookup: bool,
) -> None:
    text, finish = answer(bench, schema_grammar(SCHEMA), lookup=lookup, **fields)
    value = json.loads(text)
    assert list(value) == ["city", "kind", "people", "near"]
    assert len(value["city"]) <= 12
    assert value["kind"] in ("river", "harbour")
    assert type(value["people"]) is int
    assert [type(near) for near in value["near"]] == [bool, bool]
    assert finish == "stop"


@pytest.mark.parametrize("spelling", [ToolCalls(begin="<call>", end="</call>"), ToolCalls(begin="", end="")])
def test_a_model_of_random_weights_calls_a_tool_that_it_was_offered(
    bench: Bench, spelling: ToolCalls
) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
    tools = parse_tools({"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}, spelling)
    assert tools is not None
    text, finish = answer(bench, tools.grammar(None), seed=5)
    reader = tools.reader()
    assert reader.feed(text) == ""
    rest, (call,) = reader.finish()
    assert (rest, call.name, finish) == ("", "look", "stop")
    assert list(json.loads(call.arguments)) == ["city", "kind", "people", "near"]


def test_an_object_that_is_cut_off_says_length(bench: Bench) -> None:
    text, finish = answer(bench, object_grammar(), max_tokens=3, seed=4)
    assert finish == "length"
    assert text.startswith("{")


def test_a_text_that_must_be_exactly_so_is_so(bench: Bench) -> None:
    assert answer(bench, literal("ja: 42 ü".encode()), temperature=0.0) == ("ja: 42 ü", "stop")


def test_a_bias_and_penalties_do_not_lead_out_of_the_grammar(bench: Bench) -> None:
    token = bench.prompt("river")[2]
    text, _ = answer(
        bench, schema_grammar(SCHEMA), logit_bias=((token, 100.0),), presence_penalty=2.0, seed=3
    )
    assert json.loads(text)


def test_log_probabilities_are_those_of_the_model(bench: Bench) -> None:
    stream = bench.runner.open()
    sampling = Sampling(
        max_tokens=60, temperature=0, logprobs=2, grammar=Automaton(schema_grammar({"enum": ["zebra"]}))
    )
    bench.runner.start(stream, bench.prompt("tell me"), sampling)
    entries = [entry for piece in bench.drain()[stream] for entry in piece.logprobs]
    assert entries
    assert any(entry.chosen.bytes not in [other.bytes for other in entry.likeliest] for entry in entries)


def test_a_vocabulary_without_the_bytes_ends_the_answer() -> None:
    pieces = [b"a", b"", b"ab"]
    firsts = np.array([97, -1, 97], np.int16)
    constraint = Constraint(Automaton(literal(b"abz")), pieces, firsts, frozenset({1}), skip_space=False)
    assert constraint.allowed().tolist() == [True, False, True]
    constraint.advance(2)
    assert constraint.allowed().tolist() == [False, False, False]
    assert not constraint.complete


def test_the_end_comes_only_where_the_text_may_end() -> None:
    firsts = np.array([97, -1], np.int16)
    constraint = Constraint(Automaton(literal(b"a")), [b"a", b""], firsts, frozenset({1}), skip_space=False)
    assert not constraint.allows(1)
    constraint.advance(0)
    assert constraint.allows(1)
    assert constraint.complete
    assert constraint.ended

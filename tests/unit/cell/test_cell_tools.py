"""Tools: offered to the model, called as the pin says, answered by the client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from running_cell import RunningCell, StartCell, ask, manifest

from appliance.core.pin import ToolCalls
from inference.cell.errors import Refusal
from inference.cell.tools import CallReader, parse_tools
from inference.engine.grammar import Automaton

CHAT = "/v1/chat/completions"
HERMES = ToolCalls(begin="<tool_call>\n", end="\n</tool_call>")
PLAIN = ToolCalls(begin="", end="", arguments="parameters")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "of a town", "parameters": PARAMETERS},
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'


@pytest.fixture
def cell(start_cell: StartCell) -> RunningCell:
    """A cell whose model calls tools."""
    return start_cell(models=(manifest().model_copy(update={"tool_calls": HERMES}),))


def test_a_call_comes_back_as_one_and_its_result_goes_in(cell: RunningCell, sdk: openai.OpenAI) -> None:
    cell.engine.answer = CALL
    messages: list[Any] = [{"role": "user", "content": "rain in Ulm?"}]
    first = sdk.chat.completions.create(model="tiny", messages=messages, tools=[WEATHER, CLOCK])  # type: ignore[list-item]
    choice = first.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Ulm"})
    assert cell.engine.offered == [WEATHER, CLOCK]
    messages += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "it rains"},
    ]
    cell.engine.answer = "Yes, it rains."
    second = sdk.chat.completions.create(model="tiny", messages=messages, tools=[WEATHER])  # type: ignore[list-item]
    assert second.choices[0].message.content == "Yes, it rains."
    assert second.choices[0].finish_reason == "stop"
    told = cell.engine.seen[-1]
    assert [message["role"] for message in told] == ["user", "assistant", "tool"]
    assert told[1]["tool_calls"] == [{"function": {"name": "weather", "arguments": {"city": "Ulm"}}}]


@pytest.mark.parametrize(
    ("answer", "text", "calls", "finish"),
    [
        (CALL, "", ["weather"], "tool_calls"),
        (f"{CALL}\n{CALL}", "", ["weather", "weather"], "tool_calls"),
        ("It is <tool_call> that I say", "It is <tool_call> that I say", [], "stop"),
        ("<tool", "<tool", [], "stop"),
    ],
)
def test_a_stream_shows_text_at_once_and_calls_whole(
    cell: RunningCell, sdk: openai.OpenAI, answer: str, text: str, calls: list[str], finish: str
) -> None:
    cell.engine.answer = answer
    shown, called, reason = "", [], None
    stream = sdk.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "rain?"}],
        tools=[WEATHER],  # type: ignore[list-item]
        stream=True,
    )
    for chunk in stream:
        for choice in chunk.choices:
            shown += choice.delta.content or ""
            called += [call.function.name for call in choice.delta.tool_calls or [] if call.function]
            reason = choice.finish_reason or reason
    assert (shown, called, reason) == (text, calls, finish)


def test_calls_that_are_complete_when_the_answer_is_cut_off_are_not_lost(cell: RunningCell) -> None:
    cell.engine.answer, cell.engine.finish = CALL, "length"
    with cell.client() as client:
        for stream in (False, True):
            reply = client.post(CHAT, json=ask(tools=[WEATHER], stream=stream)).text
            assert '"finish_reason":"length"' in reply
            assert '"name":"weather"' in reply


def test_arguments_that_nest_too_deep_for_a_template_stay_text(cell: RunningCell) -> None:
    deep = "[" * 900 + "]" * 900
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": deep}}
    body = ask()
    body["messages"].append({"role": "assistant", "content": None, "tool_calls": [call]})
    with cell.client() as client:
        assert client.post(CHAT, json=body).status_code == 200
    assert cell.engine.seen[-1][1]["tool_calls"][0]["function"]["arguments"] == deep


def fits(grammar: Automaton, text: str) -> bool:
    state = grammar.walk(grammar.start, text.encode())
    return state is not None and state.accepting


@pytest.mark.parametrize(
    ("fields", "text", "expected"),
    [
        ({}, CALL, True),
        ({}, f"{CALL}\n{CALL}", True),
        ({}, "Just a text with <tool_call> in it", True),
        ({}, "<tool", True),
        ({}, "", True),
        ({}, CALL.replace("weather", "wealth"), False),
        ({}, CALL.replace("city", "town"), False),
        ({}, CALL + " and more", False),
        ({"parallel_tool_calls": False}, f"{CALL}\n{CALL}", False),
        ({"tool_choice": "required"}, CALL, True),
        ({"tool_choice": "required"}, "Just a text", False),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, CALL, False),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, CALL, True),
    ],
)
def test_an_answer_is_held_to_what_was_offered(fields: dict[str, Any], text: str, expected: bool) -> None:
    tools = parse_tools({"tools": [WEATHER, CLOCK], **fields}, HERMES)
    assert tools is not None
    assert fits(Automaton(tools.grammar(None)), text) is expected


def test_a_model_that_writes_calls_as_plain_objects() -> None:
    tools = parse_tools({"tools": [WEATHER]}, PLAIN)
    assert tools is not None
    grammar = Automaton(tools.grammar(None))
    text = '{"name": "weather", "parameters": {"city": "Ulm"}}'
    assert fits(grammar, text)
    assert not fits(grammar, '{"answer": 1}')
    assert fits(grammar, "No.")
    reader = CallReader(PLAIN)
    assert reader.feed(text) == ""
    assert [call.name for call in reader.finish()[1]] == ["weather"]


def test_a_schema_that_calls_cannot_be_held_to_is_taken_unless_it_is_strict() -> None:
    function = {"name": "look", "parameters": {"type": "object", "properties": {"day": {"format": "date"}}}}
    loose = parse_tools({"tools": [{"type": "function", "function": function}]}, HERMES)
    assert loose is not None
    grammar = Automaton(loose.grammar(None))
    assert fits(grammar, '<tool_call>\n{"name": "look", "arguments": {"anything": [1]}}\n</tool_call>')
    with pytest.raises(Refusal) as refused:
        parse_tools({"tools": [{"type": "function", "function": {**function, "strict": True}}]}, HERMES)
    assert (refused.value.code, refused.value.param) == ("schema_refused", "tools")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [3]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a", "strict": 1}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}, None),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": [1]}}]}, "tools"),
        ({"tools": [CLOCK, CLOCK]}, "tools"),
        ({"tools": [CLOCK] * 65}, "tools"),
        ({"tools": [CLOCK], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "name": "clock"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ],
)
def test_what_is_no_tool_is_refused(fields: dict[str, Any], param: str | None) -> None:
    if param is None:
        assert parse_tools(fields, HERMES) is not None
        return
    with pytest.raises(Refusal) as refused:
        parse_tools(fields, HERMES)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)


def test_a_model_without_tools_refuses_them_and_the_choice_of_none_offers_none(start_cell: StartCell) -> None:
    cell = start_cell()
    with cell.client() as client:
        refused = client.post(CHAT, json=ask(tools=[CLOCK])).json()["error"]
        assert (refused["code"], refused["param"]) == ("unsupported_parameter", "tools")
        assert client.post(CHAT, json=ask(tool_choice="none")).status_code == 200
    assert parse_tools({"tools": [CLOCK], "tool_choice": "none"}, HERMES) is None


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool"},
        {"role": "tool", "content": "x", "more": 1},
        {"role": "tool", "content": "x", "tool_call_id": 3},
        {"role": "assistant", "content": None, "tool_calls": {}},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {}}],
        },
        {"role": "user", "content": "x", "tool_calls": [{}]},
    ],
)
def test_what_is_no_call_and_no_result_is_refused(cell: RunningCell, message: dict[str, Any]) -> None:
    body = ask()
    body["messages"].append(message)
    with cell.client() as client:
        assert client.post(CHAT, json=body).status_code == 400
    assert cell.engine.decoded == 0

"""`tools`: what a client's program can do is offered to the model, and the model's calls go back to it. Nothing is run here.

A call is text, written as the pin says. A grammar lets the model begin a call only of a tool that it was offered, and go on
only with arguments that fit the tool's schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.core.names import random_id
from appliance.core.pin import ToolCalls
from inference.cell import fields as field
from inference.cell.errors import Refusal
from inference.cell.fields import Fields
from inference.engine.grammar import (
    Choice,
    Node,
    OneOf,
    Repeat,
    Sequence,
    byte_range,
    bytes_of,
    literal,
    optional,
)
from inference.engine.json_grammar import SchemaError, members_grammar, value_grammar

MOST_TOOLS: Final = 64
MOST_CALLS: Final = 8
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z", re.ASCII)
_SPACE: Final = bytes_of(" ", "\n", "\t", "\r")


@dataclass(frozen=True)
class Call:
    """A call of a tool.

    Attributes:
        id: By which its result names it.
        name: Of the tool.
        arguments: JSON.
    """

    id: str
    name: str
    arguments: str

    def fields(self) -> dict[str, Any]:
        """Return the tool call object of the OpenAI API."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


@dataclass(frozen=True)
class Tools:
    """The tools of one request.

    Attributes:
        offered: As the client sent them, for the template.
        spelling: How the model writes calls.
        schemas: What each tool's arguments must be, by name, as grammars.
        required: A call must come.
        several: More than one may.
    """

    offered: tuple[Mapping[str, Any], ...]
    spelling: ToolCalls
    schemas: Mapping[str, Node]
    required: bool
    several: bool

    def grammar(self, text: Node | None) -> Node:
        """Return what an answer may be: calls, or where none is required a text.

        Args:
            text: What the text must be, None for any.
        """
        calls = Sequence((Repeat(_SPACE, 0, 4), self._calls()))
        if self.required:
            return calls
        return Choice((calls, text if text is not None else _other_than(self._mark)))

    def reader(self) -> CallReader:
        """Return what finds the calls in an answer."""
        return CallReader(self.spelling)

    @property
    def _mark(self) -> bytes:
        return (self.spelling.begin or "{").encode()

    def _calls(self) -> Node:
        begin, end = literal(self.spelling.begin.encode()), literal(self.spelling.end.encode())
        objects = [
            members_grammar({"name": literal(json.dumps(name).encode()), self.spelling.arguments: arguments})
            for name, arguments in self.schemas.items()
        ]
        call = Sequence((begin, Choice(tuple(objects)), end))
        more = Repeat(Sequence((optional(literal(b"\n")), call)), 0, MOST_CALLS - 1)
        return Sequence((call, more)) if self.several else call


def _other_than(mark: bytes) -> Node:
    """Return any text that does not begin, after white space, with these bytes."""
    anything = Repeat(byte_range(0, 255))
    ways: list[Node] = []
    for place, byte in enumerate(mark):
        others = byte_range(0, 255).mask & ~(1 << byte)
        if place == 0:
            others &= ~_SPACE.mask
        ways.append(Sequence((literal(mark[:place]), optional(Sequence((OneOf(others), anything))))))
    return Sequence((Repeat(_SPACE), Choice(tuple(ways))))


def parse_tools(fields: Fields, spelling: ToolCalls | None) -> Tools | None:
    """Return the tools that the model may or must call, None if it may call none.

    Args:
        fields: Of a chat request.
        spelling: How the model writes calls, None if it cannot.

    Raises:
        Refusal: `unsupported_parameter` if the model cannot; `schema_refused` for parameters that a call cannot be held to,
            of a tool that is `strict`.
    """
    tools, choice = fields.get("tools", []), fields.get("tool_choice")
    several = field.boolean(fields, "parallel_tool_calls", default=True)
    if tools == []:
        if choice not in (None, "none", "auto"):
            raise Refusal("invalid_value", "tool_choice")
        return None
    if not isinstance(tools, list) or len(tools) > MOST_TOOLS:
        raise Refusal("invalid_value", "tools")
    if spelling is None:
        raise Refusal("unsupported_parameter", "tools")
    schemas = dict(map(_tool, tools))
    if len(schemas) != len(tools):
        raise Refusal("invalid_value", "tools")
    if choice == "none":
        return None
    if isinstance(choice, dict):
        name = _chosen(choice)
        if name not in schemas:
            raise Refusal("invalid_value", "tool_choice")
        schemas, several = {name: schemas[name]}, False
    elif choice not in (None, "auto", "required"):
        raise Refusal("invalid_value", "tool_choice")
    required = choice is not None and choice != "auto"
    return Tools(tuple(tools), spelling, schemas, required, several)


def _tool(tool: Any) -> tuple[str, Node]:
    if not isinstance(tool, dict) or tool.keys() != {"type", "function"} or tool["type"] != "function":
        raise Refusal("invalid_value", "tools")
    function = tool["function"]
    if not isinstance(function, dict) or not function.keys() <= {
        "name",
        "description",
        "parameters",
        "strict",
    }:
        raise Refusal("invalid_value", "tools")
    name, strict = function.get("name"), function.get("strict") or False
    if not isinstance(name, str) or not _NAME.match(name) or not isinstance(strict, bool):
        raise Refusal("invalid_value", "tools")
    if not isinstance(function.get("description") or "", str):
        raise Refusal("invalid_value", "tools")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise Refusal("invalid_value", "tools")
    try:
        return name, value_grammar({"type": "object", **parameters})
    except SchemaError:
        if strict:
            raise Refusal("schema_refused", "tools") from None
        return name, value_grammar({"type": "object"})


def _chosen(choice: dict[str, Any]) -> Any:
    if choice.keys() != {"type", "function"} or choice["type"] != "function":
        raise Refusal("invalid_value", "tool_choice")
    function = choice["function"]
    if not isinstance(function, dict) or function.keys() != {"name"}:
        raise Refusal("invalid_value", "tool_choice")
    return function["name"] if isinstance(function["name"], str) else None


class CallReader:
    """Finds the calls in one answer as it comes. Text is shown as soon as it cannot be the beginning of a call."""

    def __init__(self, spelling: ToolCalls) -> None:
        self._spelling = spelling
        self._mark = spelling.begin or "{"
        self._held = ""
        self._is_text = False

    def feed(self, text: str) -> str:
        """Take more of the answer; return what can be shown as text."""
        if self._is_text:
            return text
        self._held += text
        start = self._held.lstrip()
        if start.startswith(self._mark) or self._mark.startswith(start):
            return ""
        self._is_text = True
        held, self._held = self._held, ""
        return held

    def finish(self) -> tuple[str, list[Call]]:
        """The answer ended: return the rest of the text, or the calls."""
        held, self._held = self._held, ""
        calls = self._calls(held.strip())
        return ("", calls) if calls else (held, [])

    def _calls(self, text: str) -> list[Call]:
        """Return the calls in a text that holds nothing else, none if it does or is incomplete."""
        calls, place = [], 0
        begin, end = self._spelling.begin.strip(), self._spelling.end.strip()
        while place < len(text):
            if not text.startswith(begin, place):
                return []
            place = _after_space(text, place + len(begin))
            try:
                value, place = json.JSONDecoder().raw_decode(text, place)
            except ValueError:
                return []
            place = _after_space(text, place)
            if not isinstance(value, dict) or not text.startswith(end, place):
                return []
            place = _after_space(text, place + len(end))
            name, arguments = value.get("name"), value.get(self._spelling.arguments)
            if not isinstance(name, str):
                return []
            spelled = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
            calls.append(Call(f"call_{random_id()[:24]}", name, spelled))
        return calls


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place

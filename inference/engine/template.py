"""A pin's chat template, rendered so that what a client wrote can never become syntax of the template's language.

The template sees a random marker in place of each message's text. What it renders is cut at the markers, so it is
known of every character whether the template or the client wrote it; only the former may hold control tokens.

A consequence: a template's filters and tests on the content (trim, "is there a <think> in it") see the marker. The one
filter that is made for it is `tojson`, which templates write tools with.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.core.errors import PinError, RefusedError

_SYSTEM_ROLES: Final = frozenset({"system", "developer"})
ROLES = frozenset({*_SYSTEM_ROLES, "user", "assistant", "tool"})
# Words of tools and schemas that templates compare with; they cannot hold a control token. All others are the client's.
_SYNTAX_WORDS: Final = """$defs $ref additionalProperties anyOf array boolean const default description enum function integer
items maxItems maxLength minItems minLength name null number object parameters properties required strict string title type"""
_SYNTAX: Final = frozenset(_SYNTAX_WORDS.split())
_MARKER: Final = re.compile(r"([0-9a-f]{32}x[0-9]+)x")
_MAX_RENDERED = 2**20  # characters of the template's own, without the messages' texts
_MAX_MESSAGES = 4096


@dataclass(frozen=True)
class Fragment:
    """A run of the rendered text.

    Attributes:
        text: What it says.
        trusted: The template wrote it, so its control tokens count.
        opening: It comes before the first message that is not the system's: instructions, tools.
    """

    text: str
    trusted: bool
    opening: bool = field(default=False, compare=False)


class ChatTemplate:
    """A compiled template.

    Args:
        source: Jinja, from the pin; a template inside the weights is never used.
        bos: Text of the begin-of-sequence token.
        eos: Text of the end-of-sequence token.

    Attributes:
        takes_tools: Whether it does anything with tools.

    Raises:
        PinError: If it does not compile.
    """

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        # The dialect of transformers' chat templates, without its clock.
        environment = ImmutableSandboxedEnvironment(
            loader=None,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            autoescape=False,
        )
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(source)
            self.takes_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
        except TemplateError as error:
            raise PinError("the chat template does not compile", field="chat_template") from error
        self._names = {"bos_token": bos, "eos_token": eos, "raise_exception": _refuse}

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[Fragment]:
        """Render a conversation up to where the assistant speaks next.

        Args:
            messages: Each with `role` and `content`, and `tool_calls` where the assistant made some; anything else in them
                is not passed on.
            tools: Decoded JSON, as the OpenAI API has them.

        Raises:
            RefusedError: If the template does not take this conversation.
        """
        if not 0 < len(messages) <= _MAX_MESSAGES:
            raise RefusedError("no messages, or too many", field="messages")
        marks = _Marks()
        marked = [_marked(message, marks, index) for index, message in enumerate(messages)]
        marks.talking = False
        rendered = self._rendered(marked, [marks.everything(tool) for tool in tools])
        parts = re.split(f"({marks.nonce}x[0-9]+[xj])", rendered)
        if any(marks.nonce in part.lower() for part in parts[::2]):
            raise PinError("the chat template changes the text of messages", field="chat_template")
        fragments = []
        opening = True
        for index, part in enumerate(parts):
            marker = index % 2 == 1
            opening = opening and not (marker and marks.of_talk(part))
            text = marks.text(part) if marker else part
            if text:
                fragments.append(Fragment(text, trusted=not marker, opening=opening))
        return fragments

    def _rendered(self, messages: list[dict[str, Any]], tools: list[Any]) -> str:
        names = {**self._names, "tools": tools} if tools else self._names
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(messages=messages, add_generation_prompt=True, **names):
                parts.append(part)
                length += len(part)
                if length > _MAX_RENDERED:
                    raise RefusedError("the conversation has too many messages", field="messages")
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            # `from None`: Jinja's message can quote what it was given.
            del error
            raise RefusedError(
                "the model's chat template does not take this conversation", field="messages"
            ) from None
        return "".join(parts)


class _Marks:
    """The markers that stand for a client's texts in one rendering.

    Attributes:
        talking: What is marked now belongs to a message that is not the system's.
    """

    def __init__(self) -> None:
        self.nonce = secrets.token_hex(16)
        self.talking = False
        self._texts: list[str] = []
        self._talk: set[int] = set()

    def mark(self, text: str) -> str:
        """Return a marker for a text."""
        if self.talking:
            self._talk.add(len(self._texts))
        self._texts.append(text)
        return f"{self.nonce}x{len(self._texts) - 1}x"

    def everything(self, value: Any) -> Any:
        """Return decoded JSON with markers for all texts that are not syntax."""
        if isinstance(value, dict):
            return {self.everything(key): self.everything(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.everything(item) for item in value]
        return self.mark(value) if isinstance(value, str) and value not in _SYNTAX else value

    def of_talk(self, marker: str) -> bool:
        """Whether a marker stands for something in a message that is not the system's."""
        return self._number(marker) in self._talk

    def text(self, marker: str) -> str:
        """Return the text that a marker stands for, as JSON spells it where `tojson` wrote the marker."""
        text = self._texts[self._number(marker)]
        return json.dumps(text, ensure_ascii=False)[1:-1] if marker.endswith("j") else text

    def _number(self, marker: str) -> int:
        return int(marker[len(self.nonce) + 1 : -1])


def _marked(message: Mapping[str, Any], marks: _Marks, index: int) -> dict[str, Any]:
    marks.talking = message["role"] not in _SYSTEM_ROLES
    marked: dict[str, Any] = {
        "role": _role(message["role"], index),
        "content": marks.mark(message["content"]),
    }
    if calls := message.get("tool_calls"):
        marked["tool_calls"] = [
            {"type": "function", "function": _function(call["function"], marks)} for call in calls
        ]
        if not message["content"]:
            marked["content"] = ""  # templates ask whether there is any
    return marked


def _function(function: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    return {"name": marks.mark(function["name"]), "arguments": marks.everything(function["arguments"])}


def _to_json(value: Any, *, indent: int | None = None, sort_keys: bool = False, **_options: Any) -> str:
    """Return JSON as transformers' filter writes it: nothing in it is escaped for HTML."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=sort_keys)
    return _MARKER.sub(r"\1j", text)


def _role(role: str, index: int) -> str:
    if role not in ROLES:
        raise RefusedError("no such role", field=f"messages.{index}.role")
    return role


def _refuse(_message: str = "") -> NoReturn:
    """Stand for the template language's `raise_exception`."""
    raise TemplateError("refused by the template")

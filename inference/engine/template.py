"""A pin's chat template, rendered so that what a client wrote can never become syntax of the template's language.

The template sees a random marker in place of each message's text. What it renders is cut at the markers, so it is
known of every character whether the template or the client wrote it; only the former may hold control tokens.

A consequence: a template's filters and tests on the content (trim, "is there a <think> in it") see the marker.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.core.errors import PinError, RefusedError

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_MAX_RENDERED = 2**20  # characters of the template's own, without the messages' texts
_MAX_MESSAGES = 4096


@dataclass(frozen=True)
class Fragment:
    """A run of the rendered text. `trusted` if the template wrote it, so that its control tokens count."""

    text: str
    trusted: bool


class ChatTemplate:
    """A compiled template.

    Args:
        source: Jinja, from the pin; a template inside the weights is never used.
        bos: Text of the begin-of-sequence token.
        eos: Text of the end-of-sequence token.

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
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise PinError("the chat template does not compile", field="chat_template") from error
        self._names = {"bos_token": bos, "eos_token": eos, "raise_exception": _refuse}

    def render(self, messages: Sequence[Mapping[str, str]]) -> list[Fragment]:
        """Render a conversation up to where the assistant speaks next.

        Args:
            messages: Each with `role` and `content`; anything else in them is not passed on.

        Raises:
            RefusedError: If the template does not take this conversation.
        """
        if not 0 < len(messages) <= _MAX_MESSAGES:
            raise RefusedError("no messages, or too many", field="messages")
        nonce = secrets.token_hex(16)
        contents = {f"{nonce}x{index}x": message["content"] for index, message in enumerate(messages)}
        marked = [
            {"role": _role(message["role"], index), "content": marker}
            for index, (marker, message) in enumerate(zip(contents, messages, strict=True))
        ]
        parts = re.split(f"({nonce}x[0-9]+x)", self._rendered(marked))
        if any(nonce in part.lower() for part in parts[::2]):
            raise PinError("the chat template changes the text of messages", field="chat_template")
        fragments = [
            Fragment(contents[part], trusted=False) if index % 2 else Fragment(part, trusted=True)
            for index, part in enumerate(parts)
        ]
        return [fragment for fragment in fragments if fragment.text]

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(messages=messages, add_generation_prompt=True, **self._names):
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


def _role(role: str, index: int) -> str:
    if role not in ROLES:
        raise RefusedError("no such role", field=f"messages.{index}.role")
    return role


def _refuse(_message: str = "") -> NoReturn:
    """Stand for the template language's `raise_exception`."""
    raise TemplateError("refused by the template")

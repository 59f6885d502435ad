"""The messages of a chat request: roles and text, nothing else.

No images, no files, no tool calls: what a URL in a message points to is never fetched, since nothing here fetches.
"""

from __future__ import annotations

from typing import Any, Final

from inference.cell.errors import Refusal

# What an answer holds besides role and content: SDKs send it back as part of the history, empty.
_ECHOED: Final = frozenset(["annotations", "audio", "function_call", "name", "refusal", "tool_calls"])
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_MAX_MESSAGES: Final = 4096


def parse_messages(messages: Any) -> list[dict[str, str]]:
    """Return the conversation as `{"role", "content"}` with text content.

    Args:
        messages: The decoded field, None if it was not given.

    Raises:
        Refusal: For anything but text; `param` is `messages`, whatever is wrong inside.
    """
    if messages is None:
        raise Refusal("missing_parameter", "messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= _MAX_MESSAGES:
        raise Refusal("invalid_value", "messages")
    return [_message(message) for message in messages]


def _message(message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise Refusal("invalid_value", "messages")
    for name, value in message.items():
        if name in ("role", "content"):
            continue
        if name not in _ECHOED:
            raise Refusal("unknown_parameter")
        if value not in (None, []):
            raise Refusal("unsupported_parameter", "messages")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise Refusal("unsupported_role", "messages")
    return {"role": _ROLES[role], "content": _content(message.get("content"))}


def _content(content: Any) -> str:
    """Return a message's text; parts are joined by line breaks, as other servers of open models do."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise Refusal("unsupported_content", "messages")
    for part in content:
        if not isinstance(part, dict) or part.keys() != {"type", "text"} or part["type"] != "text":
            raise Refusal("unsupported_content", "messages")
        if not isinstance(part["text"], str):
            raise Refusal("unsupported_content", "messages")
    return "\n".join(part["text"] for part in content)

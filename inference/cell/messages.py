"""The messages of a chat request: roles and text, and calls of tools with their results where the model knows them.

No images, no files: what a URL in a message points to is never fetched, since nothing here fetches.
"""

from __future__ import annotations

from typing import Any, Final

from inference.cell import strict_json
from inference.cell.errors import Refusal

# What an answer holds besides role and content: SDKs send it back as part of the history, empty.
_ECHOED: Final = frozenset(["annotations", "audio", "function_call", "name", "refusal", "tool_calls"])
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_MAX_MESSAGES: Final = 4096
_MAX_CALLS: Final = 64


def parse_messages(messages: Any, *, tool_calls: bool = False) -> list[dict[str, Any]]:
    """Return the conversation as `{"role", "content"}` with text content, and `tool_calls` with decoded arguments.

    Args:
        messages: The decoded field, None if it was not given.
        tool_calls: Calls and their results may be among them.

    Raises:
        Refusal: For anything but text; `param` is `messages`, whatever is wrong inside.
    """
    if messages is None:
        raise Refusal("missing_parameter", "messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= _MAX_MESSAGES:
        raise Refusal("invalid_value", "messages")
    return [_message(message, tool_calls=tool_calls) for message in messages]


def _message(message: Any, *, tool_calls: bool) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Refusal("invalid_value", "messages")
    if tool_calls and message.get("role") == "tool":
        return _result(message)
    calls = message.get("tool_calls") if tool_calls and message.get("role") == "assistant" else None
    if calls:
        rest = {name: value for name, value in message.items() if name != "tool_calls"}
        told = _message({**rest, "content": rest.get("content") or ""}, tool_calls=False)
        return {**told, "tool_calls": _calls(calls)}
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


def _result(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a tool gave back. Which call it answers is told by its place, as templates have it."""
    if not {"role", "content"} <= message.keys() or not message.keys() <= {
        "role",
        "content",
        "tool_call_id",
        "name",
    }:
        raise Refusal("invalid_value", "messages")
    if not all(isinstance(message.get(name) or "", str) for name in ("tool_call_id", "name")):
        raise Refusal("invalid_value", "messages")
    return {"role": "tool", "content": _content(message["content"])}


def _calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or len(calls) > _MAX_CALLS:
        raise Refusal("invalid_value", "messages")
    return [_call(call) for call in calls]


def _call(call: Any) -> dict[str, Any]:
    if not isinstance(call, dict) or call.keys() != {"id", "type", "function"} or call["type"] != "function":
        raise Refusal("invalid_value", "messages")
    function = call["function"]
    if not isinstance(call["id"], str) or not isinstance(function, dict):
        raise Refusal("invalid_value", "messages")
    if function.keys() != {"name", "arguments"} or not all(
        isinstance(value, str) for value in function.values()
    ):
        raise Refusal("invalid_value", "messages")
    try:
        arguments = strict_json.parse(bytearray(function["arguments"], "utf-8"))
    except Refusal:  # what the model wrote was no JSON, or nests too deep to be handed to a template
        arguments = function["arguments"]
    return {"function": {"name": function["name"], "arguments": arguments}}


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

"""How an answer is spelled: the OpenAI API's chat completion object and its stream of chunks. Pure.

Chunks are cut from a prefix that is made once per answer; per piece only the text is encoded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from appliance.core.pin import Manifest
from appliance.core.receipt import SignedReceipt
from inference.cell.errors import render_error

DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class ModelName:
    """How answers name the model: by its manifest's name, and exactly by its pin."""

    name: str
    pin: str

    @classmethod
    def of(cls, manifest: Manifest) -> ModelName:
        """Name a pinned model."""
        return cls(manifest.name, manifest.pin_id)

    def entry(self) -> dict[str, Any]:
        """Return the model object of the OpenAI API, with the pin beside it."""
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "operator", "pin": self.pin}


@dataclass(frozen=True)
class Heading:
    """What every object of one answer begins with.

    Attributes:
        id: Of the answer.
        created: Unix time.
        model: What answers.
    """

    id: str
    created: int
    model: ModelName

    def fields(self, kind: str) -> dict[str, Any]:
        """Return the first fields of an object of this kind."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model.name,
            "pin": self.model.pin,
            "system_fingerprint": self.model.pin[:16],
        }


@dataclass(frozen=True)
class Usage:
    """Token counts of one answer."""

    prompt: int
    completion: int

    def fields(self) -> dict[str, int]:
        """Return the usage object of the OpenAI API."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


def encode(value: Any) -> bytes:
    """Return compact JSON in UTF-8, keys in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def render_completion(
    heading: Heading, text: str, finish: str, usage: Usage, signed: SignedReceipt | None
) -> bytes:
    """Return a whole answer; the receipt, if this is its session's last answer, is its last field."""
    message = {"role": "assistant", "content": text, "refusal": None}
    answer: dict[str, Any] = {
        **heading.fields("chat.completion"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage.fields(),
    }
    if signed is not None:
        answer["receipt"] = signed.model_dump(mode="json")
    return encode(answer)


class Chunks:
    """The server-sent events of one streamed answer (WHATWG HTML, section 9.2).

    Args:
        heading: The same in each chunk.
        include_usage: Each chunk then has a `usage` field, null but in the last.
    """

    def __init__(self, heading: Heading, *, include_usage: bool) -> None:
        head = encode(heading.fields("chat.completion.chunk"))
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._before_text = self._head + b'{"index":0,"delta":{"content":'
        self._after_text = b'},"logprobs":null,"finish_reason":null}' + self._tail

    def role(self) -> bytes:
        """The first chunk."""
        delta = b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return self._head + delta + self._tail

    def text(self, text: str) -> bytes:
        """A piece of the answer."""
        return self._before_text + encode(text) + self._after_text

    def finish(self, reason: str) -> bytes:
        """The last chunk with a choice."""
        choice = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"%s"}' % reason.encode("ascii")
        return self._head + choice + self._tail

    def usage(self, usage: Usage) -> bytes:
        """The chunk of `stream_options.include_usage`: no choice, the counts."""
        return self._head + b'],"usage":' + encode(usage.fields()) + b"}\n\n"


def render_receipt_comment(signed: SignedReceipt) -> bytes:
    """Return the receipt as a comment: every parser of event streams skips it, and it is there to be read."""
    return b": receipt " + signed.canonical_bytes() + b"\n\n"


def render_error_event(code: str) -> bytes:
    """Return an error inside a stream, in the form that OpenAI's SDKs raise."""
    return b"data: " + render_error(code) + b"\n\n"

"""How an answer is spelled: the OpenAI API's completion objects and their streams of chunks. Pure.

Chunks are cut from a prefix that is made once per answer; per piece only the text is encoded.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, ClassVar, Final

from appliance.core.pin import Manifest, ToolCalls
from appliance.core.receipt import SignedReceipt
from inference.cell.errors import render_error
from inference.cell.tools import Call

if TYPE_CHECKING:
    from inference.engine.logprobs import TokenLogprob

DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class ModelName:
    """How answers name the model: by its manifest's name, and exactly by its pin.

    Attributes:
        name: Of the manifest.
        pin: Its id.
        tool_calls: How the model writes calls of tools, None if it cannot.
    """

    name: str
    pin: str
    tool_calls: ToolCalls | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> ModelName:
        """Name a pinned model."""
        return cls(manifest.name, manifest.pin_id, manifest.tool_calls)

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
    """Token counts of one answer: the prompt once, the tokens of all choices."""

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


@dataclass
class Choice:
    """One answer as it grows.

    Attributes:
        texts: Its pieces.
        logprobs: Of its tokens; None if nobody asked.
        finish: Why it ended.
        calls: Of tools; there is no text then.
    """

    texts: list[str]
    logprobs: list[TokenLogprob] | None
    finish: str = ""
    calls: list[Call] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)


class Form(ABC):
    """How one endpoint spells its answers.

    Attributes:
        id_prefix: Of the answers' ids.
        whole_kind: `object` of a whole answer.
        chunk_kind: `object` of a chunk of a stream.
        after_text: What stands between the text and the log probabilities in a chunk's choice.
    """

    id_prefix: ClassVar[str]
    whole_kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    after_text: ClassVar[bytes]

    @abstractmethod
    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """Return one choice of a whole answer."""

    @abstractmethod
    def opening(self, index: int) -> bytes | None:
        """Return the choice in the first chunk of a stream, None if there is no such chunk."""

    @abstractmethod
    def before_text(self, index: int) -> bytes:
        """Return what comes before the text in a chunk's choice."""

    @abstractmethod
    def logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the `logprobs` object of a choice."""

    def calls(self, index: int, calls: Sequence[Call]) -> bytes:
        """Return the choice in a chunk with calls of tools."""
        raise NotImplementedError

    @abstractmethod
    def ending(self, index: int, reason: str) -> bytes:
        """Return the choice in the last chunk that has one."""


def render_whole(
    form: Form, heading: Heading, choices: Sequence[Choice], usage: Usage, signed: SignedReceipt | None
) -> bytes:
    """Return a whole answer; the receipt, if this is its session's last answer, is its last field."""
    answer: dict[str, Any] = {
        **heading.fields(form.whole_kind),
        "choices": [form.choice(index, choice) for index, choice in enumerate(choices)],
        "usage": usage.fields(),
    }
    if signed is not None:
        answer["receipt"] = signed.model_dump(mode="json")
    return encode(answer)


class Chunks:
    """The server-sent events of one streamed answer (WHATWG HTML, section 9.2).

    Args:
        form: Of the endpoint.
        heading: The same in each chunk.
        choices: How many there are.
        include_usage: Each chunk then has a `usage` field, null but in the last.
    """

    def __init__(self, form: Form, heading: Heading, *, choices: int, include_usage: bool) -> None:
        head = encode(heading.fields(form.chunk_kind))
        self._form = form
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._before_text = [self._head + form.before_text(index) for index in range(choices)]

    def opening(self) -> bytes:
        """The chunks before the first text."""
        openings = [self._form.opening(index) for index in range(len(self._before_text))]
        return b"".join(self._head + opening + self._tail for opening in openings if opening is not None)

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """A piece of a choice."""
        spelled = encode(self._form.logprobs(logprobs)) if logprobs else b"null"
        return b"".join(
            (
                self._before_text[index],
                encode_basestring(text).encode("utf-8"),
                self._form.after_text,
                spelled,
                b',"finish_reason":null}',
                self._tail,
            )
        )

    def calls(self, index: int, calls: Sequence[Call]) -> bytes:
        """The calls of a choice."""
        return self._head + self._form.calls(index, calls) + self._tail

    def ending(self, reasons: Sequence[str]) -> bytes:
        """The last chunk of every choice."""
        return b"".join(
            self._head + self._form.ending(index, reason) + self._tail for index, reason in enumerate(reasons)
        )

    def usage(self, usage: Usage) -> bytes:
        """The chunk of `stream_options.include_usage`: no choice, the counts."""
        return self._head + b'],"usage":' + encode(usage.fields()) + b"}\n\n"


def render_receipt_comment(signed: SignedReceipt) -> bytes:
    """Return the receipt as a comment: every parser of event streams skips it, and it is there to be read."""
    return b": receipt " + signed.canonical_bytes() + b"\n\n"


def render_error_event(code: str) -> bytes:
    """Return an error inside a stream, in the form that OpenAI's SDKs raise."""
    return b"data: " + render_error(code) + b"\n\n"

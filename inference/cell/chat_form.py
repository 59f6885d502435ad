"""Chat completions as the OpenAI API spells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from inference.cell.completion import Choice, Form, encode
from inference.cell.tools import Call

if TYPE_CHECKING:
    from inference.engine.logprobs import Candidate, TokenLogprob


class ChatForm(Form):
    """`chat.completion` and `chat.completion.chunk`."""

    id_prefix: ClassVar[str] = "chatcmpl-"
    whole_kind: ClassVar[str] = "chat.completion"
    chunk_kind: ClassVar[str] = "chat.completion.chunk"
    after_text: ClassVar[bytes] = b'},"logprobs":'

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """The choice with its message."""
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.calls:
            message |= {"content": None, "tool_calls": [call.fields() for call in choice.calls]}
        return {
            "index": index,
            "message": message,
            "logprobs": None if choice.logprobs is None else self.logprobs(choice.logprobs),
            "finish_reason": choice.finish,
        }

    def opening(self, index: int) -> bytes:
        """The role."""
        return (
            b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
            % index
        )

    def before_text(self, index: int) -> bytes:
        """Up to the content of the delta."""
        return b'{"index":%d,"delta":{"content":' % index

    def logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        """A list with an object for each token."""
        content = [
            {**_candidate(entry.chosen), "top_logprobs": [_candidate(other) for other in entry.likeliest]}
            for entry in logprobs
        ]
        return {"content": content, "refusal": None}

    def calls(self, index: int, calls: Sequence[Call]) -> bytes:
        """All of them in one delta."""
        delta = {"tool_calls": [{"index": place, **call.fields()} for place, call in enumerate(calls)]}
        return encode({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})

    def ending(self, index: int, reason: str) -> bytes:
        """No delta, the reason."""
        return b'{"index":%d,"delta":{},"logprobs":null,"finish_reason":"%s"}' % (
            index,
            reason.encode("ascii"),
        )


def _candidate(candidate: Candidate) -> dict[str, Any]:
    data = None if candidate.bytes is None else list(candidate.bytes)
    return {"token": candidate.text, "logprob": candidate.logprob, "bytes": data}

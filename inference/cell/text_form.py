"""Text completions as the OpenAI API spells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from inference.cell.completion import Choice, Form

if TYPE_CHECKING:
    from inference.engine.logprobs import Candidate, TokenLogprob


class TextForm(Form):
    """`text_completion`, whole and in chunks."""

    id_prefix: ClassVar[str] = "cmpl-"
    whole_kind: ClassVar[str] = "text_completion"
    chunk_kind: ClassVar[str] = "text_completion"
    after_text: ClassVar[bytes] = b',"logprobs":'

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """The choice with its text."""
        return {
            "text": choice.text,
            "index": index,
            "logprobs": None if choice.logprobs is None else self.logprobs(choice.logprobs),
            "finish_reason": choice.finish,
        }

    def opening(self, index: int) -> None:  # noqa: ARG002 - nothing to say, whichever it is
        """There is no role to tell."""
        return

    def before_text(self, index: int) -> bytes:
        """Up to the text."""
        return b'{"index":%d,"text":' % index

    def logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Parallel lists; the token itself is among its likeliest, as an extra one if need be."""
        return {
            "tokens": [_name(entry.chosen) for entry in logprobs],
            "token_logprobs": [entry.chosen.logprob for entry in logprobs],
            "top_logprobs": [
                {_name(other): other.logprob for other in (*entry.likeliest, entry.chosen)}
                for entry in logprobs
            ],
            "text_offset": [entry.offset for entry in logprobs],
        }

    def ending(self, index: int, reason: str) -> bytes:
        """No text, the reason."""
        return b'{"index":%d,"text":"","logprobs":null,"finish_reason":"%s"}' % (
            index,
            reason.encode("ascii"),
        )


def _name(candidate: Candidate) -> str:
    """Return a token's text; `bytes:` and escapes where it is half a character, since these are keys of an object."""
    if candidate.bytes is None or "\ufffd" not in candidate.text:
        return candidate.text
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in candidate.bytes)

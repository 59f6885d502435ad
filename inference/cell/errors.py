"""Every refusal that a cell can answer with: a closed table, so that no answer can quote what a client sent.

The form is the OpenAI API's: `{"error": {"message", "type", "param", "code"}}`. `param` is a field name of our own
schema or null, never a key that the client chose.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

_REQUEST: Final = "invalid_request_error"
_SERVER: Final = "server_error"
RETRY_AFTER_S: Final = 2  # what `Retry-After` says where nobody knows better
DRAINED_RETRY_AFTER_S: Final = 30  # people work on the node; clients' libraries obey up to a minute


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Attributes:
        status: Of HTTP (RFC 9110 section 15).
        type: Of the error.
        message: A sentence.
        retry: Whether to try again.
        code: What the client is told, where that is not the row's own name.
        final: Whether the SDKs, which try every 429 again at once, must be told not to (`x-should-retry`).
    """

    status: int
    type: str
    message: str
    retry: bool = False
    code: str | None = None
    final: bool = False


TABLE: Final[dict[str, Entry]] = {
    "invalid_api_key": Entry(401, _REQUEST, "The bearer token is not the one of the device that sent this."),
    "key_expired": Entry(401, _REQUEST, "The key of this device has expired; ask the operator for another."),
    "not_found": Entry(404, _REQUEST, "There is nothing at this path."),
    "method_not_allowed": Entry(405, _REQUEST, "This path does not know this method."),
    "body_timeout": Entry(408, _REQUEST, "The request body did not arrive in time."),
    "body_too_large": Entry(413, _REQUEST, "The request body is larger than this client may send."),
    "unsupported_media_type": Entry(415, _REQUEST, "The request body must be application/json."),
    "unsupported_encoding": Entry(415, _REQUEST, "The request body must not be compressed."),
    "invalid_json": Entry(400, _REQUEST, "The request body is not a JSON object in strict UTF-8."),
    "unknown_parameter": Entry(400, _REQUEST, "The request holds a field that this API does not know."),
    "unsupported_parameter": Entry(400, _REQUEST, "This version cannot do what this field asks for."),
    "missing_parameter": Entry(400, _REQUEST, "This field is required."),
    "invalid_value": Entry(400, _REQUEST, "This field has a type or value that it cannot have."),
    "max_tokens_too_large": Entry(400, _REQUEST, "More tokens than this client may ask for in one answer."),
    "too_many_choices": Entry(400, _REQUEST, "More choices than this client can have at once."),
    "choices_in_session": Entry(
        400, _REQUEST, "A kept session holds one conversation, so it gives one choice; leave the session out."
    ),
    "schema_refused": Entry(
        400,
        _REQUEST,
        "The schema is none, is too large, or asks for what no answer can be held to (docs/api.md).",
    ),
    "logprobs_required": Entry(400, _REQUEST, "top_logprobs needs logprobs to be true."),
    "unknown_token": Entry(400, _REQUEST, "A token id is not one of the model's vocabulary."),
    "several_prompts": Entry(400, _REQUEST, "One prompt at a time: a text or a list of token ids."),
    "unsupported_role": Entry(400, _REQUEST, "A message has a role that this version does not know."),
    "unsupported_content": Entry(400, _REQUEST, "A message holds content other than text."),
    "messages_refused": Entry(400, _REQUEST, "The model's template refuses these messages in this order."),
    "context_length_exceeded": Entry(
        400, _REQUEST, "This and the answer do not fit into the model's context."
    ),
    "model_not_found": Entry(404, _REQUEST, "This client has no such model; GET /v1/models lists them."),
    "session_not_found": Entry(404, _REQUEST, "There is no open session of this id."),
    "receipt_not_found": Entry(404, _REQUEST, "This client has no receipt of this id."),
    "session_busy": Entry(409, _REQUEST, "The session is answering another request."),
    "session_ended": Entry(410, _REQUEST, "The session ended while it was answering."),
    "too_many_sessions": Entry(429, "rate_limit_error", "All sessions of this client are open.", retry=True),
    "queue_full": Entry(
        429, "rate_limit_error", "Too many requests of this client wait for a stream.", retry=True
    ),
    # These five are spelled as the OpenAI API spells them, so that its SDKs and whoever reads their errors know them.
    "rate_limit_requests": Entry(
        429, "requests", "Rate limit reached: requests per minute.", retry=True, code="rate_limit_exceeded"
    ),
    "rate_limit_tokens": Entry(
        429, "tokens", "Rate limit reached: tokens per minute.", retry=True, code="rate_limit_exceeded"
    ),
    "request_above_rate": Entry(
        429,
        "tokens",
        "Request too large: prompt and max_tokens are more than this client's tokens per minute.",
        code="rate_limit_exceeded",
        final=True,
    ),
    "insufficient_quota": Entry(
        429,
        "insufficient_quota",
        "You exceeded your current quota: the day's budget is used up until midnight UTC.",
        retry=True,
        final=True,
    ),
    "session_quota": Entry(
        429,
        "insufficient_quota",
        "You exceeded your current quota: this session has used what it was granted; end it and open another.",
        code="insufficient_quota",
        final=True,
    ),
    "no_stream": Entry(503, _SERVER, "The model has no free stream.", retry=True),
    "no_seat": Entry(503, _SERVER, "This node has no free seat.", retry=True),
    "notary_unavailable": Entry(
        503, _SERVER, "No receipt can be had now, so nothing is answered.", retry=True
    ),
    "not_logged": Entry(503, _SERVER, "The log does not hold this receipt yet.", retry=True),
    "model_unavailable": Entry(503, _SERVER, "The pinned model cannot be served.", retry=True),
    "draining": Entry(
        503, _SERVER, "The server is stopping; a fresh one takes the next request.", retry=True
    ),
    "node_drained": Entry(
        503, _SERVER, "This node is being taken out of service and opens no session.", retry=True
    ),
    "deadline_passed": Entry(503, _SERVER, "The answer took longer than it was given.", retry=True),
    "engine_failed": Entry(500, _SERVER, "The engine gave up on this request."),
    "internal": Entry(500, _SERVER, "The server failed."),
}


class Refusal(Exception):  # noqa: N818 - an answer, not an accident
    """An answer from the table.

    Args:
        code: Key of `TABLE`.
        param: Name of the field of our schema that is at fault, if one is.
        receipt: Receipt id of the session this belongs to, if there is one.
        retry_after_s: What `Retry-After` says where the table says to try again.
    """

    def __init__(
        self,
        code: str,
        param: str | None = None,
        *,
        receipt: str | None = None,
        retry_after_s: int = RETRY_AFTER_S,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.param = param
        self.receipt = receipt
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """HTTP status."""
        return TABLE[self.code].status

    def body(self) -> bytes:
        """Return the JSON body."""
        return render_error(self.code, self.param)

    def headers(self) -> dict[str, str]:
        """Return the headers; the connection closes, since the body may not have been read to its end."""
        headers = {"content-type": "application/json", "cache-control": "no-store", "connection": "close"}
        if TABLE[self.code].retry:
            headers["retry-after"] = str(self.retry_after_s)
        if TABLE[self.code].final:
            headers["x-should-retry"] = "false"
        if self.receipt is not None:
            headers["x-receipt-id"] = self.receipt
        return headers


def render_error(code: str, param: str | None = None) -> bytes:
    """Return the error object of a code as JSON."""
    entry = TABLE[code]
    error = {"message": entry.message, "type": entry.type, "param": param, "code": entry.code or code}
    return json.dumps({"error": error}, separators=(",", ":")).encode("ascii")

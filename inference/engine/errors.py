"""What the engine refuses, as part of the tree in `appliance.core.errors`.

RefusedError
├── ContextOverflow       prompt and answer do not fit the stream's context
└── StreamBusy            the stream already generates, or is closed
UnavailableError
└── TryLater              says when
    ├── NoFreeStream      all streams are open; close one or wait
    ├── QueueFull         as many of the client's requests wait for a stream as may
    ├── Draining          the engine takes no more work
    └── DeadlinePassed    the answer was not complete in the time it had
HostError
└── EngineFailed          llama.cpp failed or cannot be trusted; the cell must end
    └── StateFormatError  the build's state format is not the one we can erase
BrokenOff                 a batch that nobody waits for made way; never leaves the engine
"""

from __future__ import annotations

from appliance.core.errors import HostError, RefusedError, UnavailableError
from inference.engine.pace import UNKNOWN_RETRY_S


class ContextOverflow(RefusedError):  # noqa: N818 - an engineer says "context overflow"
    """The prompt and the answer it may have do not fit. Nothing was decoded.

    Args:
        prompt_tokens: Length of the prompt; a lower bound where it was refused before being tokenised.
        limit: Context of one stream, in tokens.
    """

    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, limit: int) -> None:
        super().__init__(
            f"{prompt_tokens} prompt tokens and max_tokens do not fit a context of {limit}",
            hint="shorten the messages or lower max_tokens",
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class StreamBusy(RefusedError):  # noqa: N818 - as above
    """The stream has an answer in progress, or is not open."""

    code = "stream_busy"


class TryLater(UnavailableError):  # noqa: N818 - as above
    """The engine cannot do this now.

    Args:
        retry_after_s: When it likely can, in seconds, 1 to 60.
    """

    code = "try_later"
    summary = "the engine cannot do this now"
    advice = "try again later"

    def __init__(self, retry_after_s: int = UNKNOWN_RETRY_S) -> None:
        super().__init__(self.summary, hint=self.advice)
        self.retry_after_s = retry_after_s


class NoFreeStream(TryLater):
    """Every stream of the model's launch settings is open, at once or still so when the wait was over."""

    code = "no_free_stream"
    summary = "all streams are open"
    advice = "end a session, or raise launch.max_sessions in the pin"


class QueueFull(TryLater):
    """As many requests wait for a stream as may. A cell serves one client, so it is that client's own doing."""

    code = "queue_full"
    summary = "too many requests wait for a stream"
    advice = "send fewer requests at once"


class Draining(TryLater):
    """The engine takes no more work; what still ran when the time for it was over has been broken off."""

    code = "draining"
    summary = "the engine is draining"
    advice = "try again; a fresh cell takes the next request"


class DeadlinePassed(TryLater):
    """The answer was not complete in the time it had."""

    code = "deadline_passed"
    summary = "the answer took longer than it was given"
    advice = "lower max_tokens, or allow more time"


class EngineFailed(HostError):  # noqa: N818 - as above
    """llama.cpp failed, or did not do what we rely on. The engine serves nothing more."""

    code = "engine_failed"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "end this cell; the next request starts a fresh one")


class StateFormatError(EngineFailed):
    """A sequence state that is not in the one format we know how to overwrite."""

    code = "state_format"


class BrokenOff(Exception):  # noqa: N818 - it says what happened, and nothing is wrong
    """A batch ended early, since somebody asked for the machine."""

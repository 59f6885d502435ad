"""What the engine refuses, as part of the tree in `appliance.core.errors`.

RefusedError
├── ContextOverflow       prompt and answer do not fit the stream's context
└── StreamBusy            the stream already generates, or is closed
UnavailableError
└── NoFreeStream          all streams are open; close one or wait
HostError
└── EngineFailed          llama.cpp failed or cannot be trusted; the cell must end
    └── StateFormatError  the build's state format is not the one we can erase
"""

from __future__ import annotations

from appliance.core.errors import HostError, RefusedError, UnavailableError


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


class NoFreeStream(UnavailableError):  # noqa: N818 - as above
    """Every stream of the model's launch settings is open."""

    code = "no_free_stream"

    def __init__(self) -> None:
        super().__init__(
            "all streams are open", hint="end a session, or raise launch.max_sessions in the pin"
        )


class EngineFailed(HostError):  # noqa: N818 - as above
    """llama.cpp failed, or did not do what we rely on. The engine serves nothing more."""

    code = "engine_failed"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "end this cell; the next request starts a fresh one")


class StateFormatError(EngineFailed):
    """A sequence state that is not in the one format we know how to overwrite."""

    code = "state_format"

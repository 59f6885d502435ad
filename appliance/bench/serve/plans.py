"""Which servers a case compares, as values: everything that decides how one is started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from appliance.core.pin import Launch, Manifest

BATCH_TOKENS: Final = 512  # tokens of one decode call, for our engine and for the tuned server


@dataclass(frozen=True)
class Model:
    """The weights that every server of a run loads.

    Attributes:
        path: The GGUF file.
        manifest: Its pin; a plan replaces the launch settings.
        ends: The model ends answers by itself, so that nothing forces their length.
    """

    path: Path
    manifest: Manifest
    ends: bool = False


@dataclass(frozen=True)
class Ours:
    """Our cells.

    Attributes:
        streams: KV streams of each.
        context_tokens: Of each stream.
        cells: Processes; they divide the cores as seats do.
        guess: Tokens of streamed answers may be guessed, as the client's policy may say.
        delay_ms: Slept before every decode call. Only the positive control has one.
    """

    streams: int
    context_tokens: int
    cells: int = 1
    guess: bool = False
    delay_ms: float = 0.0

    def pin(self, model: Model) -> Manifest:
        """Return the pin with this plan's launch settings."""
        launch = Launch(
            context_tokens=self.context_tokens, max_sessions=self.streams, batch_tokens=BATCH_TOKENS
        )
        return model.manifest.model_copy(update={"launch": launch})


@dataclass(frozen=True)
class Peer:
    """llama-server.

    Attributes:
        slots: `--parallel`; None leaves it to the server (4 slots over one KV cache).
        context_tokens: Of each slot; None leaves it to the server (the context that the model was trained with).
        tuned: With the settings that suit this load best instead of its defaults.
    """

    slots: int | None = None
    context_tokens: int | None = None
    tuned: bool = False

    def arguments(self, threads: int) -> list[str]:
        """Return the arguments that make the difference; the number of threads is the same for every server."""
        arguments = ["--threads", str(threads), "--threads-batch", str(threads)]
        if self.slots is not None:
            arguments += ["--parallel", str(self.slots)]
        if self.context_tokens is not None:
            arguments += ["--ctx-size", str(_padded(self.context_tokens) * (self.slots or 1))]
        if self.tuned:
            batch = str(BATCH_TOKENS)
            arguments += ["--batch-size", batch, "--ubatch-size", batch, "--flash-attn", "auto"]
            arguments += ["--no-kv-unified", "--cache-ram", "0", "--skip-chat-parsing"]
        return arguments


@dataclass(frozen=True)
class Example:
    """The batching server among llama-cpp-python's examples, with the settings of a tuned llama-server.

    Attributes:
        slots: Sequences at once.
        context_tokens: Of each.
    """

    slots: int
    context_tokens: int

    def config(self, model: Model, threads: int, port: int) -> dict[str, Any]:
        """Return its configuration file."""
        return {
            "server": {"host": "127.0.0.1", "port": port},
            "model": {
                "path": str(model.path),
                "chat_template": model.manifest.chat_template,
                "n_ctx": _padded(self.context_tokens) * self.slots,
                "n_seq_max": self.slots,
                "n_batch": BATCH_TOKENS,
                "n_ubatch": BATCH_TOKENS,
                "kv_unified": False,
                "max_output_tokens": self.context_tokens,
                "threads": threads,
                "threads_batch": threads,
            },
        }


Plan = Ours | Peer | Example


def tuned(slots: int, context_tokens: int) -> Peer:
    """Return llama-server as somebody would set it up for this load: each slot has a stream of its own, no
    copies are made, and an answer's text is not searched for tool calls."""
    return Peer(slots, context_tokens, tuned=True)


def slowed(plan: Ours) -> Ours:
    """Return the positive control: a decode call that takes 10 ms longer, which no bound may let pass."""
    return replace(plan, delay_ms=10.0)


def chat_fields(plan: Plan, model: Model) -> dict[str, Any]:
    """Return what a chat request needs beside the messages."""
    if isinstance(plan, Ours):
        return {"model": model.manifest.name}
    if isinstance(plan, Example):
        return {"model": str(model.path)}
    return {} if model.ends else {"ignore_eos": True}


def _padded(context_tokens: int) -> int:
    return (
        -(-context_tokens // 256) * 256
    )  # as the server rounds the context of a slot, and our engine a stream's

"""The cases of the bench: which servers each compares, and under which load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.bench.serve.plans import Example, Ours, Peer, Plan, slowed, tuned
from appliance.bench.serve.workloads import (
    ANSWER_TOKENS,
    LONG_TOKENS,
    PROMPT_TOKENS,
    TURN_ANSWER_TOKENS,
    TURN_TOKENS,
    TURNS,
    Chat,
    LongPrompt,
    Retrieval,
    Streams,
    Workload,
)

OURS, TUNED, DEFAULT, EXAMPLE, SLOWED = "ours", "tuned", "default", "example", "slowed"

CONTROL: Final = "control"
_COLD_CONTEXT: Final = 2 * (PROMPT_TOKENS + ANSWER_TOKENS)
_CHAT_CONTEXT: Final = 2 * TURNS * (TURN_TOKENS + TURN_ANSWER_TOKENS)
_LONG_CONTEXT: Final = LONG_TOKENS + 256
_RETRIEVAL_CONTEXT: Final = 2048


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: What the command line calls it.
        says: What it does, for people.
        sides: What is compared, in the order of the first round.
        load: What is asked.
        extra: Only a full run has it.
        shipped: It needs the model that is shipped; the others take a synthetic one.
    """

    name: str
    says: str
    sides: Mapping[str, Plan]
    load: Workload
    extra: bool = False
    shipped: bool = False


def _streams(count: int, each: int, *, extra: bool = False) -> Case:
    sides: dict[str, Plan] = {
        OURS: Ours(count, _COLD_CONTEXT),
        TUNED: tuned(count, _COLD_CONTEXT),
        DEFAULT: Peer(),
    }
    says = f"{count} at once, {PROMPT_TOKENS} prompt tokens, {ANSWER_TOKENS} generated"
    return Case(f"streams-{count}", says, sides, Streams(count, each), extra)


def _example(count: int) -> Case:
    sides: dict[str, Plan] = {OURS: Ours(count, _COLD_CONTEXT), EXAMPLE: Example(count, _COLD_CONTEXT)}
    # Whole answers, since it does not count the tokens of those that it streams.
    says = f"{count} at once, against the batching server among llama-cpp-python's examples"
    return Case(f"example-{count}", says, sides, Streams(count, 2, stream=False), extra=True)


def _chat(name: str, sessions: int, at_once: int, *, extra: bool = False) -> Case:
    sides: dict[str, Plan] = {
        OURS: Ours(sessions, _CHAT_CONTEXT),
        TUNED: tuned(sessions, _CHAT_CONTEXT),
        DEFAULT: Peer(),
    }
    says = f"{sessions} conversations of {TURNS} turns, {at_once} at once; llama-server's default has 4 slots"
    return Case(name, says, sides, Chat(sessions, at_once), extra)


def _long(running: int) -> Case:
    # Its default of 4 slots would queue the long prompt behind the streams that it is to disturb.
    sides: dict[str, Plan] = {
        OURS: Ours(running + 1, _LONG_CONTEXT),
        TUNED: tuned(running + 1, _LONG_CONTEXT),
        DEFAULT: Peer(running + 1, _LONG_CONTEXT),
    }
    says = (
        f"{LONG_TOKENS} prompt tokens come while {running} streams run; default but for {running + 1} slots"
    )
    return Case("long-prompt", says, sides, LongPrompt(running))


def _cells(cells: int, streams: int) -> Case:
    sides: dict[str, Plan] = {
        OURS: Ours(streams, _COLD_CONTEXT, cells=cells),
        TUNED: tuned(cells * streams, _COLD_CONTEXT),
    }
    says = f"{cells} cells with {streams} streams each, against one server with {cells * streams} slots"
    return Case(f"cells-{cells}x{streams}", says, sides, Streams(cells * streams, 2))


def _retrieval(name: str, says: str, *, stream: bool = True, guess: bool = False) -> Case:
    sides: dict[str, Plan] = {
        OURS: Ours(1, _RETRIEVAL_CONTEXT, guess=guess),
        TUNED: tuned(1, _RETRIEVAL_CONTEXT),
    }
    return Case(name, f"questions about passages, {says}", sides, Retrieval(32, stream), shipped=True)


CASES: Final = (
    _streams(1, 4),
    _streams(4, 2, extra=True),
    _streams(8, 2),
    _streams(16, 1),
    _streams(32, 1),
    _example(1),
    _example(8),
    _chat("chat", 8, 8),
    _chat("chat-4", 8, 4),
    _chat("chat-16", 16, 16, extra=True),
    _long(8),
    _cells(2, 4),
    _cells(4, 2),
    _retrieval("retrieval", "answers streamed, lookup on by policy", guess=True),
    _retrieval("retrieval-no-lookup", "answers streamed, lookup off"),
    _retrieval("retrieval-whole", "answers sent whole, lookup on", stream=False),
    Case(
        CONTROL,
        "ours with 10 ms more for every decode call must fail",
        {SLOWED: slowed(Ours(1, _COLD_CONTEXT)), TUNED: tuned(1, _COLD_CONTEXT)},
        Streams(1, 1),
    ),
)


def choose(names: list[str], *, full: bool) -> list[Case]:
    """Return the cases of a run, in the order of the table; the control is always one of them.

    Args:
        names: What was asked for by name; empty for the usual ones.
        full: The extra ones too.
    """
    if names:
        return [case for case in CASES if case.name in names or case.name == CONTROL]
    return [case for case in CASES if full or not case.extra]

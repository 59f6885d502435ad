"""What the demo asks, and what a model that reads answers."""

from __future__ import annotations

from typing import Any, Final

PASSAGES: Final = (
    "[1] (handbook.md) The Harrow Street archive opens at 08:30. The code for the side door is KX-4471.\n"
    "[2] (journal.md) The last inspection of the north pump was on 14 May 2026. Ilsa Renn repaired the north pump."
)
HELLO: Final = "Hello! What are you?"
STATED: Final = "Who repaired the north pump?"
ABSENT: Final = "How much does the north pump weigh?"
# What is asked, with passages or without, and what the answer must hold.
QUESTIONS: Final = (
    (HELLO, False, "model"),
    (STATED, True, "Ilsa Renn [2]"),
    (ABSENT, True, "not in the context"),
)


def prompt(question: str, with_passages: bool) -> str:
    """Return what the client sends."""
    return f"{PASSAGES}\n\n{question}" if with_passages else question


def exchange(question: str, answer: str, expected: str) -> dict[str, Any]:
    """Return one question and answer as the demo's figures hold them."""
    return {"question": question, "answer": answer, "right": expected in answer}


def reads(conversation: list[dict[str, Any]]) -> tuple[str, str, bool]:
    """Return (promise, what was seen, whether it holds)."""
    right = sum(turn["right"] for turn in conversation)
    return "the model reads", f"{right} of {len(conversation)} answers are right", right == len(conversation)

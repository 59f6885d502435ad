"""A runner that a test drives step by step."""

from __future__ import annotations

from dataclasses import dataclass

from inference.engine.llama import Context
from inference.engine.runner import Piece, Runner
from inference.engine.sampling import Sampling
from inference.engine.scheduler import Scheduler
from inference.engine.state_blob import Layout
from inference.engine.template import ChatTemplate
from inference.engine.vocabulary import Vocabulary

CONTEXT_TOKENS = 512


@dataclass
class Bench:
    """A runner that the test drives step by step."""

    runner: Runner
    context: Context
    layout: Layout
    scheduler: Scheduler
    vocabulary: Vocabulary
    template: ChatTemplate

    def prompt(self, *turns: str) -> list[int]:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
        return self.vocabulary.prompt_tokens(self.template.render(messages))

    def drain(self) -> dict[int, list[Piece]]:
        """Step until nothing is left to do."""
        pieces: dict[int, list[Piece]] = {}
        while self.runner.busy:
            for stream, piece in self.runner.step():
                pieces.setdefault(stream, []).append(piece)
        return pieces

    def answer(self, stream: int, prompt: list[int], sampling: Sampling) -> str:
        self.runner.start(stream, prompt, sampling)
        return text_of(self.drain()[stream])


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)

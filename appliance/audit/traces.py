"""What a conversation leaves in an engine's memory, computed apart: the same build, model and tokens give the same bytes.

The audited process has nothing built in for this and is asked for nothing. What is computed here is looked for there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from appliance.models import PinnedModel
from appliance.reading.words import NOUNS
from inference.engine.loading import Loaded, load
from inference.engine.sampling import Sampling
from inference.engine.state_blob import parse_state
from inference.engine.template import ChatTemplate

KV: Final = "KV rows"
LOGITS: Final = "logits"
TOKENS: Final = "token arrays"
Messages = list[dict[str, str]]
_LEAST_BYTES: Final = 64  # of what is looked for: chance finds none of this length
_TENSORS: Final = 6  # of the KV cache, from the first to the last
_TOKENS_EACH: Final = 24
_LOGITS_BYTES: Final = 256
_SAME_START: Final = 8  # tokens that every conversation may begin with
_SAME_END: Final = 4  # tokens that the template may end it with


@dataclass(frozen=True)
class Traces:
    """A conversation and the byte strings that it leaves.

    Attributes:
        messages: What a client sends.
        early: What the first batch of its prompt leaves, by kind.
        late: What the end of its prompt leaves, by kind.
        logits: Of the answer's last token.
    """

    messages: Messages
    early: dict[str, list[bytes]]
    late: dict[str, list[bytes]]
    logits: list[bytes]


def compute(
    model: PinnedModel, canary: str, prompts: Sequence[int], max_tokens: int, *, threads: int
) -> list[Traces]:
    """Have conversations in this process, greedily, and return what they leave.

    Args:
        model: With the launch settings of the audited process.
        canary: Word to put into each.
        prompts: For each, least length of its prompt in tokens.
        max_tokens: Of each answer.
        threads: As in the audited process.
    """
    with model.weights.open("rb") as weights:
        loaded = load(model.manifest, weights.fileno(), threads=threads)
    try:
        return [_Conversation(loaded, model, canary, tokens).traces(max_tokens) for tokens in prompts]
    finally:
        loaded.release()


class _Conversation:
    """A user's message of ordinary words around the canary, as many as its prompt has to be long."""

    def __init__(self, loaded: Loaded, model: PinnedModel, canary: str, least_tokens: int) -> None:
        vocabulary, manifest = loaded.vocabulary, model.manifest
        template = ChatTemplate(manifest.chat_template, bos=vocabulary.bos, eos=vocabulary.eos)
        text, words = canary, cycle(NOUNS.split())
        while True:
            self.messages = [{"role": "user", "content": text}]
            self.prompt = vocabulary.prompt_tokens(template.render(self.messages))
            if len(self.prompt) >= least_tokens:
                break
            text = " ".join((text, *(next(words) for _ in range(10))))
        self._loaded = loaded
        self._batch = min(len(self.prompt), manifest.launch.batch_tokens)

    def traces(self, max_tokens: int) -> Traces:
        loaded, runner = self._loaded, self._loaded.runner
        stream = runner.open()
        runner.start(stream, self.prompt, Sampling(max_tokens=max_tokens, temperature=0.0))
        while runner.busy:
            runner.step()
        logits = loaded.context.logits(0).tobytes()
        state = parse_state(loaded.context.read_state(stream))
        layers, tensors = loaded.layout.layers, list(state.tensors())
        keys, values = tensors[:layers], tensors[layers:]
        # The first layer's values depend on the token alone, so another conversation may leave the same; transposed
        # values are no rows of a cell.
        chosen = keys + ([] if loaded.layout.transposed else values[1:])
        places = np.linspace(0, len(chosen) - 1, _TENSORS).round().astype(int)
        rows = [chosen[place].reshape(state.cells, -1) for place in sorted(set(places.tolist()))]
        end = len(self.prompt) - _SAME_END
        traces = Traces(
            messages=self.messages,
            early=self._around(rows, _SAME_START, min(self._batch, end)),
            late=self._around(rows, end - _TOKENS_EACH, end),
            logits=[
                logits[place : place + _LOGITS_BYTES]
                for place in range(0, len(logits) // 2, len(logits) // 8)
            ],
        )
        runner.close(stream)
        return traces

    def _around(self, rows: Sequence[NDArray[Any]], start: int, stop: int) -> dict[str, list[bytes]]:
        """Return keys and values of three cells from start to stop, and a run of token ids."""
        cells = [start + (stop - start) * part // 4 for part in (1, 2, 3)]
        kept = [row[cell].tobytes() for row in rows for cell in cells]
        ids = np.asarray(self.prompt[start : min(start + _TOKENS_EACH, stop)])
        return {
            KV: [row for row in kept if len(row) >= _LEAST_BYTES and any(row)],
            TOKENS: [ids.astype(np.int32).tobytes()],
        }

"""What is asked: the same words for every server, drawn from a seed."""

from __future__ import annotations

from random import Random
from typing import Final

from appliance.lab.synthetic_model import whole_words

_TEMPLATE_TOKENS: Final = (
    4  # <s>, <|user|>, <|end|> and <|assistant|> around a synthetic model's first message
)
_PLACES: Final = ("north", "south", "east", "west", "upper", "lower", "old", "new", "inner", "outer")
_THINGS: Final = (
    "pump",
    "gate",
    "bridge",
    "boiler",
    "archive",
    "workshop",
    "harbour",
    "kitchen",
    "tower",
    "garage",
)
_DEEDS: Final = ("repaired", "inspected", "opened", "painted", "closed", "cleaned", "measured", "insured")
_SYLLABLES: Final = (
    "ar",
    "bel",
    "cor",
    "dan",
    "el",
    "fen",
    "gor",
    "hal",
    "il",
    "jor",
    "ken",
    "lis",
    "mar",
    "nor",
)
_PASSAGES: Final = 5
_FACTS: Final = 3  # in a passage


class Prompts:
    """Draws prompts; the same seed and round draw the same ones.

    Args:
        seed: Of the run.
        round_number: Every round asks something new, so that no cache of one round serves the next.
    """

    def __init__(self, seed: int, round_number: int) -> None:
        self._random = Random(f"{seed} {round_number}")  # noqa: S311 - to be drawn again, not to be secret
        self._words = sorted(whole_words())

    def words(self, tokens: int) -> str:
        """Return a message of so many tokens of a synthetic model."""
        return " ".join(self._random.choices(self._words, k=tokens))

    def first_message(self, prompt_tokens: int) -> str:
        """Return a message whose whole prompt has so many tokens, the template's included."""
        return self.words(prompt_tokens - _TEMPLATE_TOKENS)

    def retrieval(self) -> str:
        """Return numbered passages and what is asked of them, as retrieval puts them before a model."""
        facts = [[self._fact() for _ in range(_FACTS)] for _ in range(_PASSAGES)]
        passages = [
            f"[{number}] " + " ".join(f"The {what} was {deed} by {who}." for what, deed, who in passage)
            for number, passage in enumerate(facts, 1)
        ]
        if self._random.random() < 0.5:
            question = f"Quote passage {self._random.randint(1, _PASSAGES)}."
        else:
            what, deed, _ = self._random.choice(self._random.choice(facts))
            question = f"Who {deed} the {what}?"
        return "\n".join([*passages, "", question])

    def _fact(self) -> tuple[str, str, str]:
        draw = self._random.choice
        who = " ".join("".join(self._random.choices(_SYLLABLES, k=2)).capitalize() for _ in range(2))
        return f"{draw(_PLACES)} {draw(_THINGS)}", draw(_DEEDS), who

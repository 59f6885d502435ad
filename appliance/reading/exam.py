"""The held-out questions of `appliance model bench`, and how an answer is judged.

Names, numbers, attributes and wordings are those that training never shows (`values`, `relations`); the passages are
written anew for each seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from appliance.reading.passages import (
    Fact,
    Facts,
    Passage,
    Question,
    ask_for,
    ask_in_vain,
    quote,
    write_passage,
)
from appliance.reading.small_talk import small_talk
from appliance.reading.values import Draw, Split

_MARKS: Final = re.compile(r"\[\d+\]")
_FACTS, _FILLERS = 3, 2  # of a passage, at most
_DISTRACTORS: Final = 3
_TURNS: Final = 4


@dataclass(frozen=True)
class Item:
    """A conversation to be had.

    Attributes:
        context: Passages as a client sends them, before the first question; "" for none.
        questions: Asked one after the other.
        values: All facts' values that the context states.
    """

    context: str
    questions: tuple[Question, ...]
    values: tuple[str, ...] = ()

    def user_message(self, turn: int) -> str:
        """Return what the user says in a turn."""
        text = self.questions[turn].text
        return f"{self.context}\n\n{text}" if self.context and turn == 0 else text


def is_exact(reply: str, question: Question, values: Sequence[str]) -> bool:
    """Whether a reply gives the right fact, its mark and nothing else of the context, or rightly says that it is absent.

    Args:
        reply: What the model said.
        question: What was asked.
        values: All values that the context states.
    """
    if not question.value:
        return reply.strip() == question.answer
    wrong = [value for value in values if value != question.value and value not in question.value]
    stated = _MARKS.sub("", reply.replace(question.text, ""))
    stated = stated.replace(question.value, "", 1) if holds(stated, question.value) else ""
    about = question.answer.replace(question.value, "", 1)
    return (
        holds(reply, question.value)
        and _MARKS.findall(reply) == [question.mark]
        and not any(holds(stated, value) and not holds(about, value) for value in wrong)
    )


def holds(text: str, value: str) -> bool:
    """Whether the text has the value, not as a part of a longer word or number."""
    return re.search(rf"(?<![\w.,:-]){re.escape(value)}(?![\w:-]|[.,]\w)", text) is not None


class Exam:
    """Writes questions.

    Args:
        seed: The same seed writes the same exam.
    """

    def __init__(self, seed: int) -> None:
        self._draw = Draw(Random(f"exam {seed}"), Split.EXAM)

    def single_passage(self) -> Item:
        """One passage, one question that it answers."""
        facts = Facts(self._draw)
        asked, passages = self._passages(facts, others=0)
        return self._item(passages, [self._ask(asked, passages)])

    def distractors(self) -> Item:
        """A passage that answers the question among three that seem to."""
        facts = Facts(self._draw)
        asked, passages = self._passages(facts, others=_DISTRACTORS)
        return self._item(passages, [self._ask(asked, passages)])

    def absent(self) -> Item:
        """One to four passages that say much, but not what is asked."""
        facts = Facts(self._draw)
        asked, passages = self._passages(facts, others=self._draw.random.randint(0, _DISTRACTORS))
        missing = facts.alike(asked) if self._draw.random.random() < 0.5 else facts.about(asked)
        return self._item(passages, [ask_in_vain(self._draw, missing)])

    def turns(self) -> Item:
        """Two to four passages, four questions in a row, one of them in vain."""
        facts = Facts(self._draw)
        asked, passages = self._passages(facts, others=self._draw.random.randint(1, _DISTRACTORS))
        stated = [fact for passage in passages for fact in passage.facts]
        missing = facts.alike(asked)
        chosen = self._draw.random.sample(stated, min(_TURNS - 1, len(stated)))
        questions = [self._ask(fact, passages) for fact in chosen]
        questions.insert(self._draw.random.randint(0, len(questions)), ask_in_vain(self._draw, missing))
        return self._item(passages, questions)

    def small_talk(self) -> Item:
        """A greeting, a question about the model, a request beyond it: no passages."""
        return Item("", (small_talk(self._draw),))

    def quotation(self) -> str:
        """Return what asks for a long passage word for word: an answer of a hundred tokens and more."""
        passage = write_passage(self._draw, 1, [Facts(self._draw).any()], fillers=12)
        return f"{passage.render()}\n\n{quote(self._draw, passage).text}"

    def _ask(self, fact: Fact, passages: Sequence[Passage]) -> Question:
        number = next(passage.number for passage in passages if fact in passage.facts)
        return ask_for(self._draw, fact, number)

    def _item(self, passages: Sequence[Passage], questions: Sequence[Question]) -> Item:
        context = "\n".join(passage.render() for passage in passages)
        values = tuple(fact.value for passage in passages for fact in passage.facts)
        return Item(context, tuple(questions), values)

    def _passages(self, facts: Facts, others: int) -> tuple[Fact, list[Passage]]:
        """Return a fact, and passages of which exactly one states it and the others what resembles it."""
        random = self._draw.random
        asked = facts.any()
        groups = [[asked, *(self._resembling(facts, asked) for _ in range(random.randint(0, _FACTS - 1)))]]
        groups += [
            [self._resembling(facts, asked) for _ in range(random.randint(1, _FACTS))] for _ in range(others)
        ]
        random.shuffle(groups)
        return asked, [
            write_passage(self._draw, number, group, random.randint(0, _FILLERS))
            for number, group in enumerate(groups, start=1)
        ]

    def _resembling(self, facts: Facts, asked: Fact) -> Fact:
        chance = self._draw.random.random()
        if chance < 0.4:
            return facts.alike(asked)
        return facts.about(asked) if chance < 0.7 else facts.any()

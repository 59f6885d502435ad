"""Training dialogues: passages, questions about them, small talk, and what lies beyond the model.

`{"role", "content"}` messages as a client sends them; every assistant message is what the model learns to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from appliance.reading.passages import (
    Fact,
    Facts,
    Passage,
    Question,
    ask_for,
    ask_in_vain,
    filler,
    find,
    locate,
    names,
    quote,
    write_passage,
)
from appliance.reading.small_talk import no_context_question, small_talk
from appliance.reading.values import Draw, Split

Message = dict[str, str]
_SYSTEM: Final = (
    "You answer from the passages.",
    "You are a helpful assistant.",
    "Answer from the context and cite it.",
    "Use only the context. Say so if the answer is not in it.",
    "Be brief.",
)
_HEADINGS: Final = ("", "", "Context:\n", "Passages:\n", "Here are some passages:\n", "Use this context:\n")
_LABELS: Final = ("\n\n", "\n\n", "\n\nQuestion: ", "\n", "\n\nMy question: ")


@dataclass(frozen=True)
class Scale:
    """How large a dialogue may be.

    Attributes:
        passages: Most passages.
        facts: Most facts in a passage.
        fillers: Most sentences without a fact in a passage.
        questions: Most questions that the passages answer.
        absent: Facts that are not stated and may be asked for all the same.
    """

    passages: int
    facts: int
    fillers: int
    questions: int
    absent: int


def draw_dialogue(random: Random, scale: Scale) -> list[Message]:
    """Return a dialogue: about passages nine times in ten, without any otherwise."""
    draw = Draw(random, Split.TRAINING)
    if random.random() < 0.08:
        return _without_context(draw)
    return _with_context(draw, scale)


def _without_context(draw: Draw) -> list[Message]:
    messages = []
    if draw.random.random() < 0.4:
        messages.append({"role": "system", "content": _system(draw)})
    for _ in range(draw.random.randint(1, 4)):
        if draw.random.random() < 0.25:
            question = no_context_question(draw, ask_in_vain(draw, Facts(draw).any()).text)
        else:
            question = small_talk(draw)
        messages += _turn(question.text, question.answer)
    return messages


def _with_context(draw: Draw, scale: Scale) -> list[Message]:
    """Passages and questions about them; one time in seven more passages and questions follow."""
    facts = Facts(draw)
    passages: list[Passage] = []
    messages: list[Message] = []
    chance = draw.random.random()
    rounds = 2 if scale.questions > 3 and draw.random.random() < 0.15 else 1
    for number in range(rounds):
        new, missing = draw_context(draw, facts, scale, first=len(passages) + 1)
        passages += new
        separator = "\n\n" if draw.random.random() < 0.2 else "\n"
        context = draw.pick(_HEADINGS) + separator.join(passage.render() for passage in new)
        if number == 0 and chance < 0.35:
            text = f"{_system(draw)}\n\n{context}" if chance < 0.2 else context
            messages.append({"role": "system", "content": text})
            context = ""
        elif number == 0 and chance < 0.5:
            messages.append({"role": "system", "content": _system(draw)})
        for question in _questions(draw, passages, missing, -(-scale.questions // rounds)):
            messages += _turn(_asked(draw, question, context), question.answer)
            context = ""
    return messages


def _asked(draw: Draw, question: Question, context: str) -> str:
    """Return what the user says: the question, untidily, after the passages or now and then before them."""
    text = _untidy(draw, question.text)
    if not context:
        return text
    return context + draw.pick(_LABELS) + text if draw.random.random() < 0.9 else f"{text}\n\n{context}"


def _system(draw: Draw) -> str:
    return draw.pick(_SYSTEM) if draw.random.random() < 0.7 else filler(draw)


def draw_context(draw: Draw, facts: Facts, scale: Scale, first: int) -> tuple[list[Passage], list[Fact]]:
    """Return passages numbered from `first`, and facts that they could state and don't."""
    random = draw.random
    groups: list[list[Fact]] = []
    for _ in range(random.randint(1, scale.passages)):
        group: list[Fact] = []
        for _ in range(random.randint(1, scale.facts)):
            earlier = [fact for other in (*groups, group) for fact in other]
            group.append(_next(draw, facts, earlier))
        groups.append(group)
    stated = [fact for group in groups for fact in group]
    missing = [_next(draw, facts, stated, new=0.1) for _ in range(scale.absent)]
    passages = [
        write_passage(draw, number, group, random.randint(0, scale.fillers))
        for number, group in enumerate(groups, start=first)
    ]
    return passages, missing


def _next(draw: Draw, facts: Facts, earlier: Sequence[Fact], new: float = 0.3) -> Fact:
    """Draw a fact that is easily mistaken for an earlier one, or a new one with this probability."""
    if not earlier or draw.random.random() < new:
        return facts.any()
    # Often the first one, so that four passages say the same of four things.
    model = earlier[0] if draw.random.random() < 0.3 else draw.random.choice(earlier)
    return facts.alike(model) if draw.random.random() < 0.6 else facts.about(model)


def _questions(draw: Draw, passages: Sequence[Passage], missing: Sequence[Fact], most: int) -> list[Question]:
    random = draw.random
    stated = [(fact, passage.number) for passage in passages for fact in passage.facts]
    random.shuffle(stated)
    asked = [ask_for(draw, fact, number) for fact, number in stated[: random.randint(1, most)]]
    extra: list[tuple[float, Callable[[], Question]]] = [
        *((0.36, partial(ask_in_vain, draw, fact)) for fact in missing),
        (0.12, lambda: small_talk(draw)),
        (0.12, lambda: quote(draw, random.choice(passages))),
    ]
    for entity, passage in named_once(passages):
        extra.append((0.2, partial(locate, draw, entity, passage)))
        extra.append((0.2, partial(find, draw, entity, passage)))
    asked += [make() for chance, make in extra if random.random() < chance]
    random.shuffle(asked)
    return asked


def named_once(passages: Sequence[Passage]) -> list[tuple[str, Passage]]:
    """Return the entities that a single sentence names, each with its passage."""
    return [
        (fact.entity, passage)
        for passage in passages
        for fact in passage.facts
        if sum(names(text, fact.entity) for other in passages for text in other.sentences) == 1
    ]


def _untidy(draw: Draw, text: str) -> str:
    """Return the text as people type it: mostly as it is."""
    chance = draw.random.random()
    if chance < 0.05:
        return text.rstrip("?.")
    if chance < 0.08:
        return text[0].lower() + text[1:]
    if chance < 0.12:
        return (
            f"{draw.pick(('Please tell me:', 'One more question:', 'And', 'Thanks.', 'Hi!', 'Good.'))} {text}"
        )
    return f"{filler(draw)} {text}" if chance < 0.16 else text


def _turn(text: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]

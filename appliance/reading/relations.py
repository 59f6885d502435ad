"""What a passage can say of something, in how many ways, and how it can be asked for.

`relations.txt` is the table: a relation begins with `name | kinds of entity | kinds of value` and goes on with a line
per template. `=` is the wording of the answer; `+` says it and `?` asks for it in training; `*` says it and `!` asks for
it in the exam alone. `{e}` is the entity, `{v}` the value. A sentence's first letter is made a capital, its full stop or question
mark is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Final

from appliance.reading import words
from appliance.reading.values import Draw, Split, split_of

# `{a}` is an attribute such as `serial number`; any noun will do, so these teach to read words rather than wordings.
_ANSWER: Final = "the {a} of {e} is {v}"
_SAY: Final = """the {a} of {e} is {v}|{e} has the {a} {v}|for {e} the {a} is {v}|{v} is the {a} of {e}|as {a} of {e} they
chose {v}|the {a} for {e} is {v}|{e}: {a} {v}|the list gives {v} as the {a} of {e}|they say that the {a} of {e} is {v}|as for {e}, the {a} is {v}|the {a} given for
{e} is {v}|{e} comes with the {a} {v}|under {a} of {e} we find {v}|{v} was given as {a} of {e}|the file of {e} names {v} as
{a}"""
_SAY_EXAM: Final = "with {e} the {a} is {v}|the current {a} of {e} is {v}|the {a} that belongs to {e} is {v}"
_ASK: Final = """what is the {a} of {e}|which {a} does {e} have|tell me the {a} of {e}|give me the {a} for {e}|what {a} does
{e} have|what is the {a} for {e}|I need the {a} of {e}|please name the {a} of {e}|what does {e} have as {a}|what about the {a}
of {e}|and the {a} of {e}|what is given as {a} of {e}|what {a} is there for {e}|what was chosen as {a} of {e}|for {e}, what
is the {a}|which {a} is that of {e}"""
_ASK_EXAM: Final = """what is the current {a} of {e}|do you know the {a} of {e}|can you tell me the {a} of {e}|can you find
the {a} of {e}"""
_ASK_WHO: Final = "who is the {a} of {e}|who is the {a} for {e}"
ATTRIBUTE_ENTITIES: Final = [
    "place",
    "device",
    "event",
    "document",
    "project",
    "vessel",
    "animal",
    "product",
    "organisation",
    "person",
]


@dataclass(frozen=True)
class Relation:
    """One thing that can be said.

    Attributes:
        name: Its name; two facts of one name and entity contradict each other.
        entities: Kinds of entity that it can be said of.
        values: Kinds of value.
        answer: The wording of every answer.
        say, ask: Wordings in training.
        say_exam, ask_exam: Wordings that training never shows.
    """

    name: str
    entities: tuple[str, ...]
    values: tuple[str, ...]
    answer: str
    say: tuple[str, ...]
    ask: tuple[str, ...]
    say_exam: tuple[str, ...]
    ask_exam: tuple[str, ...]

    def says(self, split: Split) -> tuple[str, ...]:
        """Return the wordings of its statements in this half."""
        return self.say_exam if split is Split.EXAM else self.say

    def asks(self, split: Split) -> tuple[str, ...]:
        """Return the wordings of its questions in this half."""
        return self.ask_exam if split is Split.EXAM else self.ask


def draw_relation(draw: Draw, entity: str = "") -> Relation:
    """Return a relation, of this kind of entity if one is named: one of the table or, one time in three, an attribute.

    Half of the attributes in training are made up, so that it is the word that is read.
    """
    if draw.random.random() < 1 / 3 and (not entity or entity in ATTRIBUTE_ENTITIES):
        if draw.split is Split.TRAINING and draw.random.random() < 0.5:
            return _made_attribute(draw)
        return draw.random.choice(_ATTRIBUTES[draw.split])
    return draw.random.choice(RELATIONS_OF[entity] if entity else RELATIONS)


def _made_attribute(draw: Draw) -> Relation:
    """Return an attribute such as `candle`, `stair weight` or `brolk`, with values of any kind."""
    while True:
        parts = [_made_word(draw) for _ in range(draw.random.choices((1, 2), (2, 1))[0])]
        if not _EXAM_WORDS & set(parts):
            return _attribute(" ".join(parts), draw.pick(_ATTRIBUTE_VALUES))


def _made_word(draw: Draw) -> str:
    return draw.coined().lower() if draw.random.random() < 0.35 else draw.pick(_NOUNS)


def _parse(table: str) -> tuple[Relation, ...]:
    relations = []
    for block in table.strip().split("\n\n"):
        head, *lines = block.split("\n")
        name, entities, values = (part.strip() for part in head.split("|"))
        of = {mark: tuple(line[2:] for line in lines if line[0] == mark) for mark in "=+?*!"}
        (answer,) = of["="]
        relations.append(
            Relation(
                name,
                tuple(entities.split()),
                tuple(values.split()),
                answer,
                of["+"],
                of["?"],
                of["*"],
                of["!"],
            )
        )
    return tuple(relations)


def _attributes() -> dict[Split, tuple[Relation, ...]]:
    """Return the attributes of each half; those of the exam are nouns that no training question asks for."""
    halves: dict[Split, list[Relation]] = {split: [] for split in Split}
    for names, kind in _attribute_groups():
        for name in names:
            halves[split_of(f"attribute {name}")].append(_attribute(name, kind))
    return {split: tuple(found) for split, found in halves.items()}


def _attribute_groups() -> list[tuple[list[str], str]]:
    groups = []
    names = ""
    for line in words.ATTRIBUTES.strip().split("\n"):
        text, _, kind = line.partition(":")
        names += f" {text}"
        if kind:
            groups.append(([name.strip() for name in names.split(",")], kind.strip()))
            names = ""
    return groups


def _attribute(name: str, kind: str) -> Relation:
    asks = _ASK if kind != "person" else f"{_ASK}|{_ASK_WHO}"
    fill = [
        tuple(template.replace("{a}", name) for template in " ".join(text.split("\n")).split("|"))
        for text in (_SAY, asks, _SAY_EXAM, _ASK_EXAM)
    ]
    answer = _ANSWER.replace("{a}", name)
    return Relation(name, tuple(ATTRIBUTE_ENTITIES), (kind,), answer, *fill)


RELATIONS: Final = _parse(resources.files(__package__).joinpath("relations.txt").read_text("utf-8"))
RELATIONS_OF: Final = {
    kind: tuple(relation for relation in RELATIONS if kind in relation.entities)
    for kind in sorted(
        {kind for relation in RELATIONS for kind in relation.entities} | set(ATTRIBUTE_ENTITIES)
    )
}
_ATTRIBUTES: Final = _attributes()
_EXAM_WORDS: Final = {word for relation in _ATTRIBUTES[Split.EXAM] for word in relation.name.split()}
_ATTRIBUTE_VALUES: Final = tuple(kind for _, kind in _attribute_groups())
_NOUNS: Final = words.NOUNS.split()

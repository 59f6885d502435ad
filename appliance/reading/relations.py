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
{a}|at {e} the {a} is {v}|in the case of {e} the {a} is {v}|{e} was given the {a} {v}|{e} shows {v} as its {a}|the {a} of {e} has
been set to {v}|the {a} of {e} was changed to {v}|we wrote {v} down as the {a} of {e}|its papers give {e} the {a} {v}|when it comes
to {e}, the {a} is {v}|the {a} which {e} has is {v}|the {a} they gave to {e} is {v}|the {a} in use for {e} is {v}|{e} has {v} as
{a}|{e} ({a} {v}) is well known|{e}, whose {a} is {v}, was in the news|you can read that the {a} of {e} is {v}|{a} of {e}: {v}|the
{a} is {v} for {e}|its {a} makes {e} known: {v}|{v} is what they call the {a} of {e}|look at {e} and you see that the {a} is {v}|here
is the {a} of {e}: {v}|on {e} stands the {a} {v}|the {a} that goes to {e} is {v}|{v} serves as {a} of {e}|of {e} we know that the {a}
is {v}|to {e} belongs the {a} {v}|the {a}, in the matter of {e}, is {v}|among other things {e} has {v} for its {a}|the {a} written on
{e} is {v}|{v} is the {a} that {e} has|{e} got {v} as its {a}"""
_SAY_EXAM: Final = "with {e} the {a} is {v}|the current {a} of {e} is {v}|the {a} that belongs to {e} is {v}"
_ASK: Final = """what is the {a} of {e}|which {a} does {e} have|tell me the {a} of {e}|give me the {a} for {e}|what {a} does
{e} have|what is the {a} for {e}|I need the {a} of {e}|please name the {a} of {e}|what does {e} have as {a}|what about the {a}
of {e}|and the {a} of {e}|what is given as {a} of {e}|what {a} is there for {e}|what was chosen as {a} of {e}|for {e}, what
is the {a}|which {a} is that of {e}|what is the {a} that {e}
has|at {e}, what is the {a}|what {a} was {e} given|which {a} was given to {e}|what does it say about the {a} of {e}|the {a} of {e},
what is it|what do they give as the {a} of {e}|what {a} do the papers of {e} show|with which {a} does {e} come|show the {a} of
{e}|I am looking for the {a} of {e}|I would like the {a} of {e}|let me have the {a} of {e}|how about the {a} of {e}|{e}: which
{a}|{a} of {e}|what is the {a} in the case of {e}|to what was the {a} of {e} set|is there a {a} given for {e}|when it comes to {e},
what is the {a}|what was noted as {a} of {e}|what {a} belongs to {e}|what is {e}'s {a}|tell me {e}'s {a}|which {a} do we find with
{e}|who can say the {a} of {e}|what is the {a} called that {e} has"""
_ASK_EXAM: Final = """what is the current {a} of {e}|do you know the {a} of {e}|can you tell me the {a} of {e}|can you find
the {a} of {e}"""
_ASK_WHO: Final = "who is the {a} of {e}|who is the {a} for {e}"
# `<V>` is a made-up verb, `<w>` when or where, `<p>` a preposition; the first statement is the wording of the answer.
_VERB_FRAMES: Final = (
    (
        """{e} <Vs> {v}|{v} is <Ved> by {e}|{e} has <Ved> {v}|{e} can <V> {v}|it is {v} that {e} <Vs>|{v} is what {e} <Vs>|what
{e} <Vs> is {v}|they saw {e} <V> {v}|{e} will <V> {v}|{e} is there to <V> {v}|{e} <Ved> {v}|{e} began to <V> {v}|to <V> {v} is up
to {e}|{v} was <Ved> by {e}""",
        """what does {e} <V>|what is <Ved> by {e}|what has {e} <Ved>|what can {e} <V>|tell me what {e} <Vs>|what did {e} <V>|what
will {e} <V>|what is it that {e} <Vs>|which thing does {e} <V>|what is there to <V> for {e}|name what {e} <Vs>|of what is it said
that {e} <Vs> it""",
        (
            "code",
            "money",
            "count",
            "version",
            "colour",
            "material",
            "organisation",
            "person",
            "weight",
            "length",
        ),
    ),
    (
        """{e} was <Ved> by {v}|{v} <Ved> {e}|it was {v} who <Ved> {e}|{v} has <Ved> {e}|{e} has been <Ved> by {v}|the one who
<Ved> {e} was {v}|{v} was there to <V> {e}|{v} was asked to <V> {e}|thanks to {v}, {e} was <Ved>|{v} helped to <V> {e}|to <V> {e} was
the work of {v}|{e} had to be <Ved> by {v}|{e} is <Ved> by {v}|{v} <Vs> {e}""",
        """who <Ved> {e}|by whom was {e} <Ved>|who has <Ved> {e}|tell me who <Ved> {e}|who was asked to <V> {e}|who could <V>
{e}|name who <Ved> {e}|whom did they let <V> {e}|who did <V> {e}|which person <Ved> {e}|whose work was it to <V> {e}|who <Vs> {e}|
by whom is {e} <Ved>|who is there to <V> {e}""",
        ("person", "organisation"),
    ),
    (
        """{e} <Vs> <p> {v}|<p> {v} {e} <Vs>|{e} is <Ved> <p> {v}|it is <p> {v} that {e} <Vs>|{e} was seen to <V> <p> {v}|they
<V> {e} <p> {v}|{e} has <Ved> <p> {v}|{e} will <V> <p> {v}|{e}, which <Vs> <p> {v}, is known|{v} is <w> {e} <Vs>|people <V> <p> {v}
with {e}|{e} began to <V> <p> {v}""",
        """<w> does {e} <V>|<w> is {e} <Ved>|<w> do they <V> {e}|tell me <w> {e} <Vs>|<w> will {e} <V>|<w> has {e} <Ved>|<w>
can {e} <V>|<w> did {e} <V>|<w> is it that {e} <Vs>|<w> was {e} seen to <V>|<w> must {e} <V>|<w> is it known to <V> {e}""",
        ("spot", "town", "time", "date", "year", "weekday"),
    ),
)
_MADE_VERBS: Final = 0.12  # share of a training's facts
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

    Half of the attributes in training are made up, and so are some verbs, so that it is the word that is read.
    """
    if draw.split is Split.TRAINING and draw.random.random() < _MADE_VERBS:
        return _made_verb(draw, entity)
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


def _made_verb(draw: Draw, entity: str) -> Relation:
    """Return a relation of a verb that means nothing, such as `mirrors` or `brolks`, with something, someone, where or when."""
    verb = next(word for word in iter(lambda: _made_word(draw), "") if len(word) > 3)  # "the" is no verb
    past = f"{verb}d" if verb.endswith("e") else f"{verb}ed"
    said, asked, kinds = draw.random.choice(_VERB_FRAMES)
    where = {"time": "when", "date": "when", "year": "when", "weekday": "when"}
    kind = draw.random.choice(kinds)
    filled = {
        "V": verb,
        "Vs": f"{verb}s",
        "Ved": past,
        "w": where.get(kind, "where"),
        "p": draw.pick(("at", "in", "on")),
    }

    def fill(templates: str) -> tuple[str, ...]:
        text = " ".join(templates.split("\n"))
        for key, value in filled.items():
            text = text.replace(f"<{key}>", value)
        return tuple(text.split("|"))

    says, asks = fill(said), fill(asked)
    entities = (entity,) if entity else tuple(ATTRIBUTE_ENTITIES)
    return Relation(filled["Vs"], entities, (kind,), says[0], says, asks, (), ())


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

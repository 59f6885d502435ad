"""How training varies a wording: a table of templates is finite, what people write is not.

Templates hold `{e}` for the entity and `{v}` for the value; neither is ever torn from what surrounds it in meaning, only
led up to, interrupted and trailed off. The exam's texts are not dressed, and none of its phrases is listed here.
"""

from __future__ import annotations

import re
from typing import Final

from appliance.reading import words
from appliance.reading.values import Draw

_JOINED: Final = "\0"


def dress_statement(draw: Draw, text: str, name: str) -> str:
    """Return a statement's template with words that state nothing.

    Args:
        draw: Where the chance comes from.
        text: The template.
        name: Of the relation; an attribute's name stays in one piece.
    """
    text = _modified(draw, text, 0.15)
    text = _interrupted(draw, text, name, 0.22)
    chance = draw.random.random()
    if chance < 0.14:
        return f"{draw.pick(_STATEMENT_HEADS)} {text}"
    if chance < 0.18:
        return f"{_aside(draw)} {text}"
    if chance < 0.22:
        return f"{draw.of('person')} {draw.pick(_REPORTING)} that {text}"
    if chance < 0.3:
        return f"{text} {draw.pick(_STATEMENT_TAILS)}"
    return f"{text} {_aside(draw)}" if chance < 0.36 else text


def dress_question(draw: Draw, text: str, name: str) -> str:
    """Return a question's template in one of the ways people lead up to it."""
    text = _modified(draw, text, 0.2)
    if text.startswith("tell me "):
        text = _lead(draw) + text.removeprefix("tell me ")
    elif _ACTIVE.match(text) and draw.random.random() < 0.15:
        text = draw.pick(_CLEFTS) + text.removeprefix("who ")
    elif draw.random.random() < 0.4:
        indirect = _indirect(text)
        text = _lead(draw) + indirect if indirect else text
    text = _interrupted(draw, text, name, 0.15)
    chance = draw.random.random()
    if chance < 0.06:
        return f"{text} {draw.pick(_QUESTION_TAILS)}"
    return f"{text} {_aside(draw)}" if chance < 0.09 else text


def _indirect(text: str) -> str:
    """Return a question as it stands inside another one ("when does it open", "when it opens"), "" if it cannot."""
    if found := _NAMED.match(text):
        return found["noun"]
    if _SUBJECT.match(text):
        return text
    if not (found := _INVERTED.match(text)):
        return ""
    asking, auxiliary, subject, rest = found["asking"], found["auxiliary"], found["subject"], found["rest"]
    if auxiliary == "do":
        return f"{asking} {subject}{rest}"
    if auxiliary == "does" and rest:
        verb, *others = rest.split()
        return " ".join((asking, subject, _third_person(verb), *others))
    return f"{asking} {subject} {auxiliary}{rest}"


def _third_person(verb: str) -> str:
    if verb == "have":
        return "has"
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x", "o")) else f"{verb}s"


def _lead(draw: Draw) -> str:
    chance = draw.random.random()
    if chance < 0.4:
        return f"{draw.pick(_LEADS)} "
    if chance < 0.65:
        return f"{draw.pick(_ASKING)} {draw.pick(_SAYING)} "
    if chance < 0.9:
        return f"{draw.pick(_OPENERS)} {draw.pick(_KNOWERS)} {draw.pick(_KNOWING)} "
    return f"{draw.coined()} {draw.coined().lower()} "


def _modified(draw: Draw, text: str, chance: float) -> str:
    """Return the text, by chance with an adjective that changes nothing before the noun that is asked for."""
    if draw.random.random() < chance and (place := _NOUN.search(text)):
        adjective = draw.pick(_MODIFIERS) if draw.random.random() < 0.5 else draw.pick(_PLAIN)
        return f"{text[: place.end()]}{adjective} {text[place.end() :]}"
    return text


def _interrupted(draw: Draw, text: str, name: str, chance: float) -> str:
    """Return the text, by chance with a word or a few between two others; a value keeps what follows it."""
    if draw.random.random() >= chance:
        return text
    parts = text.replace(name, name.replace(" ", _JOINED)).split(" ")
    places = [place for place in range(1, len(parts)) if "{v}" not in parts[place - 1]]
    if places:
        place = draw.random.choice(places)
        form = draw.random.random()
        if form < 0.5 or "{v}" in parts[place]:  # a strange word before a value would seem to be a part of it
            between = draw.pick(_ADVERBS)
        else:
            between = draw.coined().lower() if form < 0.75 else _aside(draw)
        parts.insert(place, between)
    return " ".join(parts).replace(_JOINED, " ")


def _aside(draw: Draw) -> str:
    """Return words such as "near the old fence"."""
    noun = draw.pick(_NOUNS)
    if draw.random.random() < 0.4:
        noun = f"{draw.pick(_PLAIN)} {noun}"
    return f"{draw.pick(_PREPOSITIONS)} {draw.pick(('the', 'a', 'every', 'that'))} {noun}"


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split("\n")).split("|"))


_STATEMENT_HEADS: Final = _listed(words.STATEMENT_HEADS)
_STATEMENT_TAILS: Final = _listed(words.STATEMENT_TAILS)
_NOUNS, _PLAIN, _ADVERBS, _MODIFIERS = (
    listed.split() for listed in (words.NOUNS, words.PLAIN_ADJECTIVES, words.ADVERBS, words.MODIFIERS)
)
_REPORTING: Final = ("says", "writes", "told us", "thinks", "reports", "is sure")
_PREPOSITIONS: Final = (
    "near",
    "behind",
    "with",
    "under",
    "beside",
    "without",
    "after",
    "before",
    "for",
    "like",
)
_LEADS: Final = _listed(words.QUESTION_LEADS)
_ASKING: Final = _listed(words.QUESTION_ASKING)
_SAYING: Final = _listed(words.QUESTION_SAYING)
_OPENERS: Final = ("do", "did", "can", "could", "would", "will", "might", "should")
_KNOWERS: Final = (
    "we",
    "they",
    "people",
    "the papers",
    "these passages",
    "your notes",
    "I",
    "somebody",
    "any of you",
)
_KNOWING: Final = _listed(words.QUESTION_KNOWING)
_CLEFTS: Final = ("who is the one that ", "who then ", "which human ", "is it known who ", "and who ")
_QUESTION_TAILS: Final = ("please", "exactly", "again", "now", "then", "by the way", "in the end")
_ASKED: Final = r"(?:(?:at|in|on|by|to|from|for|of|with|since|until|after|under|out of) )?(?:when|where|what|which|who|whom|whose|how)\b"
_INVERTED: Final = re.compile(
    rf"(?P<asking>{_ASKED}(?: [a-z]+)*?) (?P<auxiliary>is|was|are|were|has|have|does|do|did|will|would|can|could|must|may|might)"
    r" (?P<subject>\{e\}|I|you|they|we|people|visitors|somebody|inspectors)(?P<rest>(?: .*)?)$"
)
_SUBJECT: Final = re.compile(
    r"(?:who|what|(?:which|whose|how many) [a-z]+) (?!is |was |are |does |did |do |has |have |can |will |must |may |could |would |might )"
)
_NAMED: Final = re.compile(r"(?:what|who) (?:is|was) (?P<noun>the .*)$")
_ACTIVE: Final = re.compile("who (?!is |was |does |did |has )")
_NOUN: Final = re.compile(r"\b[Tt]he (?=[a-z])")

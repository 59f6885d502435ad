"""Names, numbers, times and codes, drawn at random from one of two halves that never meet.

What a training dialogue contains is drawn from one side of the split and what the exam contains from the other: a text
belongs to the exam if the first byte of its SHA-256 is below 64. The closed sets (weekdays, colours, materials) are in
both. Everything follows from the `random.Random` given, so a seed gives the same texts on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from random import Random
from typing import Final

from appliance.reading import words

_EXAM_BELOW: Final = 64  # of 256: a quarter of all names and numbers is never trained on
_TRIES: Final = 200


class Split(Enum):
    """Which half of all names, numbers and templates."""

    TRAINING = "training"
    EXAM = "exam"


@lru_cache(maxsize=1 << 16)
def split_of(text: str) -> Split:
    """Return the half that a text belongs to."""
    first = hashlib.sha256(text.encode("utf-8")).digest()[0]
    return Split.EXAM if first < _EXAM_BELOW else Split.TRAINING


class Draw:
    """Draws texts of one half.

    Args:
        random: Where the chance comes from.
        split: Which half.
    """

    def __init__(self, random: Random, split: Split) -> None:
        self.random = random
        self.split = split
        self._makers: dict[str, Callable[[], str]] = {
            name.removeprefix("_make_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_make_")
        }

    def of(self, kind: str) -> str:
        """Return a new text of this kind (a value such as `time`, an entity such as `place`)."""
        make = self._makers[kind]
        for _ in range(_TRIES):
            text = make()
            if kind in _CLOSED or split_of(text) is self.split:
                return text
        raise AssertionError(f"no {kind} in this half")

    def mine(self, options: Sequence[str]) -> Sequence[str]:
        """Return those of the options that lie in this half."""
        return [option for option in options if split_of(option) is self.split]

    def pick(self, options: Sequence[str]) -> str:
        """Return one of the options, whatever half it is in."""
        return self.random.choice(options)

    def digits(self, count: int) -> str:
        """Return that many digits, the first not 0."""
        first = self.random.choice("123456789")
        return first + "".join(self.random.choice("0123456789") for _ in range(count - 1))

    def coined(self) -> str:
        """Return a word that nobody has seen, capitalised, of this half."""
        for _ in range(_TRIES):
            word = self._coin()
            if split_of(word) is self.split:
                return word
        raise AssertionError("no word in this half")

    def _coin(self) -> str:
        syllables = self.random.choices((1, 2, 3), (4, 5, 1))[0]
        text = "".join(
            self.pick(_ONSETS)
            + self.pick(_NUCLEI)
            + (self.pick(_CODAS) if self.random.random() < 0.5 else "")
            for _ in range(syllables)
        )
        if len(text) < 3:
            text += self.pick(_CODAS)
        if self.random.random() < 0.03:
            place = self.random.randrange(len(text))
            text = text[:place] + self.pick(_ACCENTED) + text[place + 1 :]
        return text[0].upper() + text[1:]

    def _name(self, listed: Sequence[str]) -> str:
        """Three names in five are listed ones, the others are coined."""
        return self.pick(self.mine(listed)) if self.random.random() < 0.6 else self.coined()

    # Values.

    def _make_person(self) -> str:
        first, last = self._name(_FIRST), self._name(_LAST)
        form = self.random.random()
        if form < 0.05:
            return f"{self.pick(('Dr', 'Ms', 'Mr', 'Professor'))} {last}"
        if form < 0.1:
            return f"{first} {self.pick(_CAPITALS)}. {last}"
        return f"{first} {last}"

    def _make_organisation(self) -> str:
        form = self.random.random()
        if form < 0.7:
            return f"{self._name(_LAST)} {self.pick(_ENDINGS)}"
        if form < 0.85:
            return f"{self._name(_LAST)} and {self._name(_LAST)}"
        return f"{self._name(_LAST)} {self.pick(('Ltd', 'Inc', 'GmbH', 'Group', 'and Sons'))}"

    def _make_town(self) -> str:
        form = self.random.random()
        if form < 0.8:
            return self.coined()
        return f"{self.pick(('Port', 'Saint', 'New', 'Upper', 'Bad', 'Lake', 'Fort'))} {self.coined()}"

    def _make_time(self) -> str:
        minute = self.random.choice((0, 15, 30, 45, self.random.randrange(60), self.random.randrange(60)))
        form = self.random.random()
        if form < 0.7:
            return f"{self.random.randrange(24):02}:{minute:02}"
        hour, half = self.random.randint(1, 12), self.pick(("am", "pm"))
        return f"{hour} {half}" if form < 0.8 else f"{hour}:{minute:02} {half}"

    def _make_date(self) -> str:
        day, month, year = self.random.randint(1, 28), self.pick(_MONTHS), self._make_year()
        form = self.random.random()
        if form < 0.4:
            return f"{day} {month} {year}"
        if form < 0.6:
            return f"{day} {month}"
        if form < 0.8:
            return f"{month} {day}, {year}"
        return f"{year}-{self.random.randint(1, 12):02}-{day:02}"

    def _make_year(self) -> str:
        return str(self.random.randint(1700, 2060))

    def _make_count(self) -> str:
        number = self.random.randrange(10 ** self.random.choice((1, 2, 2, 3, 3, 4, 5))) + 2
        return f"{number:,}" if self.random.random() < 0.5 else str(number)

    def _make_money(self) -> str:
        amount = self._make_count()
        form = self.random.random()
        if form < 0.4:
            return f"{amount} {self.pick(('euros', 'dollars', 'pounds', 'francs', 'crowns'))}"
        cents = f".{self.random.randrange(100):02}" if self.random.random() < 0.4 else ""
        return f"{self.pick(('$', 'EUR ', 'USD ', 'GBP ', '€'))}{amount}{cents}"

    def _make_code(self) -> str:
        letters = "".join(self.random.choice(_CAPITALS) for _ in range(self.random.randint(1, 3)))
        digits = self.digits(self.random.randint(1, 5))
        form = self.random.randrange(6)
        return (
            f"{letters}-{digits}",
            f"{digits}-{letters}",
            f"{letters}{digits}",
            f"{letters}-{digits}-{self.random.choice(_CAPITALS)}",
            "".join(self.random.choice(_CAPITALS + "0123456789") for _ in range(self.random.randint(4, 8))),
            digits + self.digits(2),
        )[form]

    def _make_phone(self) -> str:
        form = self.random.random()
        if form < 0.4:
            return self.digits(4)
        if form < 0.7:
            return f"0{self.digits(3)} {self.digits(2)} {self.digits(3)}"
        return f"+{self.digits(2)} {self.digits(3)} {self.digits(4)}"

    def _make_percent(self) -> str:
        number = str(self.random.randint(1, 99))
        if self.random.random() < 0.4:
            number += f".{self.random.randint(1, 9)}"
        return number + self.pick((" percent", " %", "%"))

    def _make_temperature(self) -> str:
        sign = "minus " if self.random.random() < 0.2 else ""
        return f"{sign}{self.random.randint(1, 1600)} {self.pick(('degrees', 'degrees Celsius', 'kelvin'))}"

    def _make_length(self) -> str:
        return (
            f"{self._quantity()} {self.pick(('metres', 'centimetres', 'kilometres', 'millimetres', 'feet'))}"
        )

    def _make_weight(self) -> str:
        return f"{self._quantity()} {self.pick(('kilograms', 'tonnes', 'grams', 'pounds', 'kg'))}"

    def _make_duration(self) -> str:
        unit = self.pick(("seconds", "minutes", "hours", "days", "weeks", "months", "years"))
        return f"{self.random.randint(2, 99)} {unit}"

    def _quantity(self) -> str:
        number = self._make_count()
        return number if self.random.random() < 0.7 else f"{number}.{self.random.randint(1, 9)}"

    def _make_spot(self) -> str:
        number, letter = self.random.randint(1, 999), self.random.choice(_CAPITALS)
        form = self.random.randrange(7)
        return (
            f"Room {number}",
            f"{self.pick(('hall', 'shelf', 'bay', 'gate', 'platform', 'locker', 'rack', 'box'))} {number}",
            f"{self.pick(('hall', 'wing', 'block', 'sector', 'zone', 'dock'))} {letter}",
            f"{number} {self.pick(_STREETS)} Street",
            f"Building {letter}{number}",
            f"the {self.pick(_ADJECTIVES)} {self.pick(_PLACES)}",
            f"{self._name(_LAST)} {self.pick(('Square', 'Lane', 'Hall', 'Road', 'House'))}",
        )[form]

    def _make_version(self) -> str:
        return ".".join(str(self.random.randrange(40)) for _ in range(self.random.choice((2, 3, 3))))

    def _make_host(self) -> str:
        word, number = self.coined().lower(), self.random.randrange(100)
        form = self.random.randrange(4)
        return (
            f"{word}-{number:02}",
            f"{self.pick(('srv', 'db', 'web', 'node', 'mail'))}-{word}-{number}",
            f"{word}.example",
            ".".join(str(self.random.randrange(256)) for _ in range(4)),
        )[form]

    def _make_colour(self) -> str:
        tone = self.pick(("dark ", "light ", "pale ")) if self.random.random() < 0.3 else ""
        return tone + self.pick(_COLOURS)

    def _make_material(self) -> str:
        return self.pick(_MATERIALS)

    def _make_weekday(self) -> str:
        return self.pick(_WEEKDAYS)

    # Entities: what a fact is about.

    def _make_place(self) -> str:
        form = self.random.random()
        if form < 0.45:
            return f"the {self.pick(_ADJECTIVES)} {self.pick(_PLACES)}"
        if form < 0.6:
            return f"the {self.pick(_PLACES)}"
        if form < 0.75:
            return f"the {self.pick(_STREETS)} Street {self.pick(_PLACES)}"
        return f"the {self._name(_LAST)} {self.pick(_PLACES)}"

    def _make_device(self) -> str:
        noun = self.pick(_DEVICES)
        form = self.random.random()
        if form < 0.4:
            return f"the {self.pick(_ADJECTIVES)} {noun}"
        if form < 0.55:
            return f"the {noun}"
        if form < 0.75:
            return f"{noun} {self.random.choice(_CAPITALS)}-{self.random.randint(1, 99)}"
        if form < 0.9:
            return f"{noun} {self.random.randint(1, 999)}"
        return f"the {self.coined()} {noun}"

    def _make_event(self) -> str:
        form = self.random.random()
        if form < 0.6:
            return f"the {self.pick(_ADJECTIVES)} {self.pick(_EVENTS)}"
        return f"the {self.coined()} {self.pick(_EVENTS)}" if form < 0.8 else f"the {self.pick(_EVENTS)}"

    def _make_document(self) -> str:
        noun = self.pick(_DOCUMENTS)
        form = self.random.random()
        if form < 0.5:
            return f"the {self.pick(_ADJECTIVES)} {noun}"
        if form < 0.75:
            return f"{noun} {self.random.choice(_CAPITALS)}-{self.random.randint(1, 999)}"
        return f"the {self._name(_LAST)} {noun}"

    def _make_project(self) -> str:
        name = self.pick(self.mine(_PROJECTS)) if self.random.random() < 0.6 else self.coined()
        return f"{self.pick(('Project', 'Project', 'Operation', 'Mission'))} {name}"

    def _make_vessel(self) -> str:
        name = self.pick(self.mine(_PROJECTS)) if self.random.random() < 0.4 else self.coined()
        return f"the {self.pick(('ferry', 'ship', 'yacht', 'freighter', 'trawler', 'barge', 'tug'))} {name}"

    def _make_animal(self) -> str:
        return f"the {self.pick(_ANIMALS)} {self._name(_FIRST)}"

    def _make_product(self) -> str:
        number = self.random.randint(1, 9000)
        return f"the {self.coined()} {number}" if self.random.random() < 0.6 else f"model {self._make_code()}"


_ONSETS: Final = [
    "b",
    "bl",
    "br",
    "c",
    "ch",
    "cl",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "fr",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "kn",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sh",
    "sk",
    "sl",
    "sp",
    "st",
    "str",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "x",
    "y",
    "z",
]
_NUCLEI: Final = [
    "a",
    "a",
    "a",
    "e",
    "e",
    "e",
    "i",
    "i",
    "o",
    "o",
    "u",
    "u",
    "ai",
    "au",
    "ea",
    "ee",
    "ei",
    "ie",
    "oa",
    "oo",
    "ou",
    "ue",
    "y",
]
_CODAS: Final = [
    "b",
    "ck",
    "d",
    "ff",
    "g",
    "k",
    "l",
    "ll",
    "m",
    "n",
    "n",
    "n",
    "nd",
    "ng",
    "nk",
    "nt",
    "p",
    "r",
    "r",
    "rd",
    "rk",
    "rn",
    "rt",
    "s",
    "s",
    "sk",
    "ss",
    "st",
    "t",
    "th",
    "v",
    "x",
    "z",
]
_ACCENTED: Final = "áàâäãåçéèêëíîïñóòôöõøúûüýßłśžčř"
_CAPITALS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CLOSED: Final = frozenset({"colour", "material", "weekday"})
_FIRST, _LAST, _PROJECTS = (
    listed.split() for listed in (words.FIRST_NAMES, words.LAST_NAMES, words.PROJECT_WORDS)
)
_PLACES, _DEVICES, _EVENTS, _DOCUMENTS = (
    listed.split()
    for listed in (words.PLACE_NOUNS, words.DEVICE_NOUNS, words.EVENT_NOUNS, words.DOCUMENT_NOUNS)
)
_ADJECTIVES, _STREETS, _ENDINGS, _ANIMALS = (
    listed.split() for listed in (words.ADJECTIVES, words.STREETS, words.ORGANISATION_ENDINGS, words.ANIMALS)
)
_COLOURS, _MATERIALS, _WEEKDAYS, _MONTHS = (
    listed.split() for listed in (words.COLOURS, words.MATERIALS, words.WEEKDAYS, words.MONTHS)
)

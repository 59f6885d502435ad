"""Byte-fallback BPE as llama.cpp's `llama` vocabulary (SentencePiece) does it: trained here, encoded here, exported by `export`.

Rules, the same as in llama.cpp's `llm_tokenizer_spm`: a space is put before the text, spaces become U+2581, the text is
split into characters, and of all neighbours that make a known piece together the best-scored pair is joined, leftmost
first, until there is none. What is no piece then becomes its UTF-8 bytes. Pieces are ASCII letters with or without a
space before them, and citation marks: to cite is then one choice, made where the fact ends. Other digits and punctuation
are never joined, so a number reads the same wherever it stands.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

SPACE: Final = "\u2581"
UNKNOWN, BOS, EOS, END = "<unk>", "<s>", "</s>", "<|end|>"
ROLES: Final = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}
CONTROL: Final = (BOS, EOS, END, *ROLES.values())
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "<|{{ {'developer': 'system', 'tool': 'user'}.get(message.role, message.role) }}|>{{ message.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS: Final = tuple(f"[{number}]" for number in range(1, 21))
"""Citation marks that are a token each."""
_MARKS: Final = (
    *(mark[:-1] for mark in MARKS),
    *MARKS,
    *(SPACE + mark for mark in MARKS),
)  # in the order of joining
_CHARACTERS: Final = (SPACE, *(chr(code) for code in range(33, 127)))
_RUNS: Final = re.compile(rf"{SPACE}?(?:\[[0-9]*\]?|[A-Za-z]+)|.", re.DOTALL)
_MOST_FREQUENT: Final = 40_000  # words looked at in training


class Tokenizer:
    """A vocabulary.

    Args:
        letters: The pieces longer than a character apart from marks, best score first.

    Attributes:
        pieces: Texts of all tokens, by id.
    """

    def __init__(self, letters: Sequence[str]) -> None:
        self.letters = tuple(letters)
        self.joined = _MARKS + self.letters
        self._first_byte = 1 + len(CONTROL)
        byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
        self.pieces = [UNKNOWN, *CONTROL, *byte_pieces, *_CHARACTERS, *self.joined]
        self.ids = {piece: number for number, piece in enumerate(self.pieces)}
        self._plain = {piece: self.ids[piece] for piece in (*_CHARACTERS, *self.joined)}
        self._rank = {piece: rank for rank, piece in enumerate(self.joined)}
        self._numbers = {
            self.ids[space + mark]: number
            for number, mark in enumerate(MARKS, start=1)
            for space in ("", SPACE)
        }
        self._encode_run = lru_cache(maxsize=1 << 18)(self._encode_run_uncached)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text between two control tokens; no text becomes a control token."""
        if not text:
            return []
        tokens: list[int] = []
        for run in _RUNS.findall((" " + text).replace(" ", SPACE)):
            tokens += self._encode_run(run)
        return tokens

    def mark(self, token: int) -> int:
        """Return the number that a citation mark says, 0 for any other token."""
        return self._numbers.get(token, 0)

    def encode_chat(self, messages: Iterable[dict[str, str]]) -> tuple[list[int], list[bool]]:
        """Return the tokens of a conversation, and of each whether the assistant said it."""
        tokens, said = [self.ids[BOS]], [False]
        for message in messages:
            content = [*self.encode(message["content"]), self.ids[END]]
            tokens += [self.ids[ROLES[message["role"]]], *content]
            said += [False, *[message["role"] == "assistant"] * len(content)]
        return tokens, said

    def save(self, path: Path) -> None:
        """Write the pieces of letters as JSON."""
        path.write_text(json.dumps(self.letters, ensure_ascii=False), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read what `save` wrote."""
        return cls(json.loads(path.read_text("utf-8")))

    def _encode_run_uncached(self, run: str) -> tuple[int, ...]:
        symbols = list(run)
        while True:
            ranked = [
                (self._rank[pair], place)
                for place, pair in enumerate(map("".join, pairwise(symbols)))
                if pair in self._rank
            ]
            if not ranked:
                break
            _, place = min(ranked)
            symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
        tokens: list[int] = []
        for symbol in symbols:
            token = self._plain.get(symbol)
            if token is None:
                # A lone surrogate, which JSON can spell and UTF-8 cannot, becomes "?", as in the engine.
                tokens += [self._first_byte + byte for byte in symbol.encode("utf-8", "replace")]
            else:
                tokens.append(token)
        return tuple(tokens)


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a vocabulary of `size` pieces: the most frequent pair of neighbours becomes a piece, again and again."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(
            run
            for run in _RUNS.findall((" " + text).replace(" ", SPACE))
            if run[-1].isalpha() and len(run) > 1
        )
    words = [(list(run), count) for run, count in counts.most_common(_MOST_FREQUENT)]
    pairs: Counter[str] = Counter()
    places: defaultdict[str, set[int]] = defaultdict(set)
    for number, (symbols, count) in enumerate(words):
        for pair in _neighbours(symbols):
            pairs[pair] += count
            places[pair].add(number)
    joined: list[str] = []
    room = size - len(Tokenizer(()).pieces)
    while len(joined) < room and pairs:
        best = max(pairs.items(), key=lambda item: (item[1], item[0]))[0]
        joined.append(best)
        for number in places.pop(best):
            symbols, count = words[number]
            for pair in _neighbours(symbols):
                pairs[pair] -= count
            _join(symbols, best)
            for pair in _neighbours(symbols):
                pairs[pair] += count
                places[pair].add(number)
        del pairs[best]
    return Tokenizer(joined)


def _neighbours(symbols: Sequence[str]) -> list[str]:
    return ["".join(pair) for pair in pairwise(symbols)]


def _join(symbols: list[str], piece: str) -> None:
    place = 0
    while place < len(symbols) - 1:
        if symbols[place] + symbols[place + 1] == piece:
            symbols[place : place + 2] = [piece]
        place += 1

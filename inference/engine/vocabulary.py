"""A model's tokens as text and back, with the rule that a client's text never becomes syntax of its template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from inference.engine.template import Fragment

if TYPE_CHECKING:
    from inference.engine.llama import Model


class Vocabulary:
    """The tokens of one model.

    Attributes:
        pieces: Bytes of every token, by id; control tokens have none.
        first_bytes: (n_vocab,) int16, the first of them, -1 where there are none.
        longest_piece: Length of the longest of them, in bytes.
        bos: Text of the begin-of-sequence token, "" if there is none.
        eos: Text of the end-of-sequence token, "" if there is none.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        tokens = range(model.n_vocab)
        self.pieces = [model.piece(token) for token in tokens]
        self.first_bytes = np.array([piece[0] if piece else -1 for piece in self.pieces], np.int16)
        self.longest_piece = max(1, *map(len, self.pieces))
        self.bos = model.text(model.bos) if model.bos >= 0 else ""
        self.eos = model.text(model.eos) if model.eos >= 0 else ""
        self._ending = frozenset(token for token in tokens if model.ends_generation(token))
        self._eager = {
            text: token for token in tokens if model.user_defined(token) and (text := model.text(token))
        }
        control = {text: token for token in tokens if model.control(token) and (text := model.text(token))}
        self._specials = self._eager | control
        # Longest first, as llama.cpp looks for them.
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._special = re.compile(
            f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "((?!))"
        )
        first = model.tokenize(b"a", parse_special=False)
        self._adds_space = b"".join(self.pieces[token] for token in first) == b" a"

    def prompt_tokens(self, fragments: Sequence[Fragment]) -> list[int]:
        """Tokenise a rendered conversation.

        Special tokens are looked for in trusted fragments only. All text between two of them is tokenised as one run,
        whoever wrote it, so that an honest conversation gets the very tokens the model was trained on.
        """
        tokens: list[int] = []
        for kind, items in groupby(self._items(fragments), type):
            if kind is str:
                tokens += self._plain("".join(item for item in items if isinstance(item, str)))
            else:
                tokens += [item for item in items if isinstance(item, int)]
        bos = self._model.bos
        if self._model.add_bos and tokens[:1] != [bos]:  # templates often write it themselves
            tokens.insert(0, bos)
        return tokens

    def text_tokens(self, text: str, *, add_special: bool) -> list[int]:
        """Tokenise plain text. What it spells never becomes a control token.

        Args:
            text: Any.
            add_special: Begin with the begin-of-sequence token where the model wants one.
        """
        begin = [self._model.bos] if add_special and self._model.add_bos else []
        return begin + self._plain(text)

    def text_of(self, tokens: Iterable[int]) -> str:
        """Return what tokens say: no control tokens, U+FFFD for what is not UTF-8, no space that tokenising added."""
        data = b"".join(self.pieces[token] for token in tokens)
        return (data.removeprefix(b" ") if self._adds_space else data).decode("utf-8", "replace")

    def describe(self, token: int) -> tuple[str, bytes | None]:
        """Return a token's text, U+FFFD for what is not UTF-8, and its bytes; of a control token its name and None."""
        piece = self.pieces[token]
        return (piece.decode("utf-8", "replace"), piece) if piece else (self._model.text(token), None)

    def stop_tokens(self, stops: Iterable[str]) -> frozenset[int]:
        """Return the tokens that end an answer: those of the vocabulary, and the pin's stops that are one token."""
        return self._ending | {self._specials[stop] for stop in stops if stop in self._specials}

    def strips_space(self, prompt: Sequence[int]) -> bool:
        """Whether an answer to this prompt begins with a space that only SentencePiece put there."""
        return self._adds_space and not self.pieces[prompt[-1]]

    def _items(self, fragments: Sequence[Fragment]) -> Iterator[str | int | None]:
        """Yield text, special tokens, and None where a run of text must be cut."""
        trusted = {f: self._special.split(f.text) for f in fragments if f.trusted}
        used = {part for parts in trusted.values() for part in parts[1::2]}
        cuts = _cuts(used & self._eager.keys())
        for fragment in fragments:
            if fragment.trusted:
                for index, part in enumerate(trusted[fragment]):
                    yield self._specials[part] if index % 2 else part
                continue
            for index, part in enumerate(cuts.split(fragment.text)):
                if index:
                    yield None
                yield part

    def _plain(self, text: str) -> list[int]:
        # A lone surrogate, which JSON can spell and UTF-8 cannot, becomes "?".
        return self._model.tokenize(text.encode("utf-8", "replace"), parse_special=False) if text else []


def _cuts(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches the empty place behind the first character of each text.

    llama.cpp makes user-defined tokens out of any text, asked or not. Some conversions of models declare turn markers
    that way, so where a client wrote one that the template uses as well, it is cut in two.
    """
    places = [
        f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in sorted(texts) if len(text) > 1
    ]
    return re.compile("|".join(places) or "(?!)")

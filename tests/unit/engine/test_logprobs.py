"""Log probabilities: the model's own, with the text that they belong to, and exact to the byte."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from engine_bench import Bench, text_of

from inference.engine.engine import _Request
from inference.engine.logprobs import LOWEST, Logprobs, TokenLogprob
from inference.engine.runner import Piece
from inference.engine.sampling import Sampling
from inference.engine.text import AnswerText

PIECES = [b"a", b"b", b"<st", b"op>", "€".encode()[:1], "€".encode()[1:], b""]


def describe(token: int) -> tuple[str, bytes | None]:
    piece = PIECES[token]
    return (piece.decode("utf-8", "replace"), piece) if piece else ("<control>", None)


def speak(tokens: list[int], *stops: str, ends: bool = True) -> list[tuple[str, list[TokenLogprob]]]:
    """Say tokens one by one; return what is shown after each, and with which log probabilities."""
    text, logprobs = AnswerText(stops, strip_space=False), Logprobs(2, describe, len(PIECES))
    said = []
    for place, token in enumerate(tokens):
        logprobs.observe(np.arange(len(PIECES), dtype=np.float32))
        logprobs.add(token, held=text.held)
        shown = text.feed(PIECES[token])
        last = ends and place == len(tokens) - 1
        if last:
            shown += text.finish()
        said.append((shown, list(logprobs.release(shown, ended=last and not text.stopped))))
    return said


def names(said: list[tuple[str, list[TokenLogprob]]]) -> list[tuple[str, list[str]]]:
    return [(text, [entry.chosen.text for entry in entries]) for text, entries in said]


def test_a_row_becomes_the_logarithm_of_its_probabilities() -> None:
    logits = np.random.default_rng(1).standard_normal(len(PIECES)).astype(np.float32) * 5
    logprobs = Logprobs(3, describe, len(PIECES))
    logprobs.observe(logits)
    logprobs.add(1, held=0)
    (entry,) = logprobs.release("b", ended=False)
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    assert entry.chosen.logprob == pytest.approx(exact[1], abs=1e-5)
    likeliest = np.argsort(-exact)[:3]
    assert [other.text for other in entry.likeliest] == [describe(token)[0] for token in likeliest]
    assert [other.logprob for other in entry.likeliest] == pytest.approx(exact[likeliest], abs=1e-5)


def test_no_probability_is_a_number_that_json_has() -> None:
    logprobs = Logprobs(0, describe, len(PIECES))
    logprobs.observe(np.array([0, -math.inf, 0, 0, 0, 0, 0], np.float32))
    logprobs.add(1, held=0)
    (entry,) = logprobs.release("b", ended=False)
    assert (entry.chosen.logprob, entry.likeliest) == (LOWEST, ())


def test_equally_likely_tokens_are_named_in_the_order_of_their_ids() -> None:
    logprobs = Logprobs(len(PIECES), describe, len(PIECES))
    logprobs.observe(np.zeros(len(PIECES), np.float32))
    logprobs.add(0, held=0)
    (entry,) = logprobs.release("a", ended=False)
    assert [other.text for other in entry.likeliest] == [describe(token)[0] for token in range(len(PIECES))]


def test_half_a_character_waits_and_then_both_tokens_come_with_exact_bytes() -> None:
    said = speak([0, 4, 5, 1])
    assert names(said) == [("a", ["a"]), ("", []), ("€", ["\ufffd", "\ufffd\ufffd"]), ("b", ["b"])]
    halves = said[2][1]
    assert b"".join(entry.chosen.bytes or b"" for entry in halves) == "€".encode()
    assert [entry.offset for _, entries in said for entry in entries] == [0, 1, 1, 2]


def test_tokens_of_a_stop_text_never_come() -> None:
    assert names(speak([0, 2, 3, 1], "<stop>")) == [("a", ["a"]), ("", []), ("", []), ("", [])]


def test_tokens_of_what_did_not_become_a_stop_text_come_with_it() -> None:
    assert names(speak([0, 2, 1], "<stop>")) == [("a", ["a"]), ("", []), ("<stb", ["<st", "b"])]
    assert names(speak([0, 2], "<stop>")) == [("a", ["a"]), ("<st", ["<st"])]


def test_a_control_token_is_named_and_has_no_bytes() -> None:
    said = speak([0, 6, 1])
    assert names(said) == [("a", ["a"]), ("", []), ("b", ["<control>", "b"])]
    assert said[2][1][0].chosen.bytes is None


def test_closing_overwrites_the_last_row() -> None:
    logprobs = Logprobs(1, describe, len(PIECES))
    logprobs.observe(np.arange(len(PIECES), dtype=np.float32))
    assert logprobs._row.any()
    logprobs.close()
    assert not logprobs._row.any()


def tell(bench: Bench, stream: int, **fields: Any) -> list[Piece]:
    bench.runner.start(stream, bench.prompt("tell me"), Sampling(max_tokens=20, temperature=0, **fields))
    return bench.drain()[stream]


@pytest.mark.engine
def test_an_answers_log_probabilities_spell_its_text_and_change_nothing_of_it(bench: Bench) -> None:
    stream = bench.runner.open()
    plain = tell(bench, stream)
    asked = tell(bench, stream, logprobs=3)
    assert text_of(asked) == text_of(plain)
    assert all(piece.logprobs == () for piece in plain)
    entries = [entry for piece in asked for entry in piece.logprobs]
    assert len(entries) == 20
    assert (
        b"".join(entry.chosen.bytes or b"" for entry in entries).decode().lstrip() == text_of(plain).lstrip()
    )
    for entry in entries:
        assert entry.chosen == entry.likeliest[0]  # greedy
        assert len(entry.likeliest) == 3
        assert sum(math.exp(other.logprob) for other in entry.likeliest) <= 1.0 + 1e-5


@pytest.mark.engine
def test_log_probabilities_are_the_models_own_whatever_is_done_to_its_logits(bench: Bench) -> None:
    stream = bench.runner.open()
    tell(bench, stream)  # the later answers all reuse its prompt: their batches have the same shape
    first = tell(bench, stream, logprobs=5)[0].logprobs[0]
    word = next(token for token, piece in enumerate(bench.vocabulary.pieces) if piece.strip().isalpha())
    biased = tell(bench, stream, logprobs=5, logit_bias=((word, 100.0),), presence_penalty=1.0)[0].logprobs[0]
    assert biased.likeliest == first.likeliest
    assert biased.chosen.bytes == bench.vocabulary.pieces[word]
    assert biased.chosen.logprob < math.log(0.5)


def test_pieces_that_a_slow_reader_takes_as_one_keep_all_their_log_probabilities() -> None:
    entries = [entry for _, released in speak([0, 1, 0]) for entry in released]
    request = _Request(prompt_tokens=1, max_tokens=3)
    request.pieces = [Piece("a", 1, None, (entries[0],)), Piece("ba", 2, "length", tuple(entries[1:]))]
    assert request.take() == Piece("aba", 3, "length", tuple(entries))

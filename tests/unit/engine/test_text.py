"""Text that comes in pieces is the text that comes at once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.text import AnswerText, StopMatcher

SMALL = st.text("ab<é", max_size=30)
STOPS = st.lists(st.text("ab<é", min_size=1, max_size=4), max_size=3)


def feed(stops: list[str], pieces: list[bytes]) -> tuple[str, bool]:
    text = AnswerText(stops, strip_space=False)
    out = [text.feed(piece) for piece in pieces]
    return "".join(out) + text.finish(), text.stopped


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


@given(SMALL, STOPS, st.lists(st.integers(0, 60)))
def test_chunking_changes_neither_the_text_nor_where_it_stops(
    text: str, stops: list[str], places: list[int]
) -> None:
    data = text.encode()
    whole = feed(stops, [data])
    assert feed(stops, cut(data, places)) == whole
    assert feed(stops, [bytes([byte]) for byte in data]) == whole


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)))
def test_chunking_does_not_change_what_becomes_of_invalid_bytes(data: bytes, places: list[int]) -> None:
    assert feed([], cut(data, places)) == feed([], [data]) == (data.decode("utf-8", "replace"), False)


@given(SMALL, STOPS)
def test_no_stop_text_ever_comes_out_and_nothing_before_the_first_is_lost(
    text: str, stops: list[str]
) -> None:
    out, stopped = feed(stops, [text.encode()])
    assert stopped == any(stop in text for stop in stops)
    assert text.startswith(out)
    if stopped:
        assert any(text.startswith(stop, len(out)) for stop in stops)
    else:
        assert out == text


@given(SMALL, STOPS)
def test_only_what_may_become_a_stop_is_held_back(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = matcher.feed(text)
    held = text[len(shown) :]
    if not matcher.stopped and held:
        assert any(stop.startswith(held) for stop in stops)


def test_half_a_character_waits_for_its_other_half() -> None:
    text = AnswerText([], strip_space=False)
    assert text.feed("€".encode()[:2]) == ""
    assert text.feed("€".encode()[2:]) == "€"
    assert text.feed(b"\xe2\x82") == ""
    assert text.finish() == "\ufffd"


def test_a_stop_across_three_tokens_is_cut_out() -> None:
    text = AnswerText(["<|end|>"], strip_space=False)
    assert [text.feed(piece) for piece in (b"so <", b"|end", b"|> more")] == ["so ", "", ""]
    assert text.stopped
    assert text.feed(b"more") == ""
    assert text.finish() == ""


def test_what_did_not_become_a_stop_comes_out_after_all() -> None:
    text = AnswerText(["<|end|>"], strip_space=False)
    assert text.feed(b"1 <| 2 <|e") == "1 <| 2 "
    assert text.finish() == "<|e"


@pytest.mark.parametrize(("first", "shown"), [(b" The", "The"), (b"The", "The"), (b"  x", " x"), (b"", "")])
def test_one_leading_space_is_dropped_where_asked(first: bytes, shown: str) -> None:
    text = AnswerText([], strip_space=True)
    assert text.feed(first) == shown


def test_a_control_token_first_does_not_use_up_the_space_to_drop() -> None:
    text = AnswerText([], strip_space=True)
    assert [text.feed(piece) for piece in (b"", b" a", b" b")] == ["", "a", " b"]

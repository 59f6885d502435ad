"""What is looked for is found wherever it lies, and counted once."""

from __future__ import annotations

import ctypes
import os

import pytest

from appliance.audit.memory import count_in, forms, make_canary, read_memory


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_needle_is_found_across_two_pieces_and_counted_once(cut: int) -> None:
    text = b"..canary...."
    assert count_in([text[:cut], text[cut:], b""], [b"canary"]) == {b"canary": 1}


def test_what_lies_in_two_regions_is_no_needle() -> None:
    assert count_in([b"..can", b"", b"ary.."], [b"canary"]) == {b"canary": 0}


def test_needles_of_different_lengths_are_counted_apart() -> None:
    pieces = [b"ab" * 3, b"abcab", b"c"]
    assert count_in(pieces, [b"abc", b"ab"]) == {b"abc": 2, b"ab": 5}


def test_the_memory_of_a_process_holds_what_it_was_given() -> None:
    canary = make_canary()
    held = ctypes.create_string_buffer(canary.encode())
    counts = count_in(read_memory(os.getpid(), writable=True), forms(canary)[:1])
    assert sum(counts.values()) >= 1
    assert held.value == canary.encode()


def test_a_process_that_does_not_exist_holds_nothing() -> None:
    assert list(read_memory(2**22 + 1)) == []

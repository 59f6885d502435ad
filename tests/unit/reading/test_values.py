"""Names and numbers come in two halves that never meet, and a seed gives the same texts again."""

from random import Random

import pytest

from appliance.reading.relations import ATTRIBUTE_ENTITIES, RELATIONS
from appliance.reading.values import Draw, Split, split_of

KINDS = sorted(
    {kind for relation in RELATIONS for kind in (*relation.entities, *relation.values)}
    | {*ATTRIBUTE_ENTITIES, "percent"}
)
CLOSED = {"colour", "material", "weekday"}  # too few of them to be split


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_exam_draws_training_never_draws(kind):
    halves = {split: {Draw(Random(n), split).of(kind) for n in range(200)} for split in Split}
    assert all(halves.values())
    if kind not in CLOSED:
        assert not halves[Split.TRAINING] & halves[Split.EXAM]
        assert all(split_of(text) is split for split, texts in halves.items() for text in texts)


def test_words_that_are_coined_are_split_too():
    halves = {split: {Draw(Random(n), split).coined() for n in range(500)} for split in Split}
    assert len(halves[Split.EXAM]) > 300
    assert not halves[Split.TRAINING] & halves[Split.EXAM]


def test_a_seed_gives_the_same_texts_again():
    first, second = ([Draw(Random(7), Split.EXAM).of(kind) for kind in KINDS] for _ in range(2))
    assert first == second

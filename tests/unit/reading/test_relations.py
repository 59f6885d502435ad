"""The table of what can be said and asked: complete, and its two halves disjoint."""

import pytest

from appliance.reading.relations import RELATIONS, draw_relation
from appliance.reading.values import Draw, Split

IDS = [relation.name for relation in RELATIONS]


@pytest.mark.parametrize("relation", RELATIONS, ids=IDS)
def test_every_wording_names_what_it_is_about(relation):
    for statement in (relation.answer, *relation.say, *relation.say_exam):
        assert (statement.count("{e}"), statement.count("{v}")) == (1, 1), statement
    for question in (*relation.ask, *relation.ask_exam):
        assert (question.count("{e}"), question.count("{v}")) == (1, 0), question


@pytest.mark.parametrize("relation", RELATIONS, ids=IDS)
def test_the_exam_asks_and_says_in_words_that_training_does_not_use(relation):
    assert len(relation.say_exam) >= 2
    assert len(relation.ask_exam) >= 2
    assert not set(relation.say) & set(relation.say_exam)
    assert not set(relation.ask) & set(relation.ask_exam)
    assert relation.answer not in relation.say_exam


def test_attributes_of_the_exam_are_nouns_that_training_does_not_ask_for(random):
    halves = {
        split: {
            relation.name
            for _ in range(3000)
            if (relation := draw_relation(Draw(random, split))).name not in IDS
        }
        for split in Split
    }
    assert min(map(len, halves.values())) > 30
    words = {split: {word for name in names for word in name.split()} for split, names in halves.items()}
    assert not halves[Split.TRAINING] & halves[Split.EXAM]
    assert len(halves[Split.TRAINING]) > 3 * len(halves[Split.EXAM])  # made up ones
    assert "battery" in words[Split.EXAM] - words[Split.TRAINING]

"""Training dialogues: every answer is right by construction, and nothing of the exam is in them."""

import re

from appliance.reading.dialogues import Scale, draw_context, draw_dialogue, named_once
from appliance.reading.exam import Exam, holds
from appliance.reading.passages import NOT_IN_CONTEXT, Facts, ask_for, find, locate, names
from appliance.reading.values import Draw, Split

SCALE = Scale(passages=4, facts=3, fillers=2, questions=6, absent=2)


def dialogues(random, count=400):
    return [draw_dialogue(random, SCALE) for _ in range(count)]


def test_users_and_the_assistant_take_turns_after_at_most_one_system_message(random):
    for messages in dialogues(random):
        roles = [message["role"] for message in messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert len(turns) >= 2


def contexts(random, count=200):
    """Passages of training contexts, and what they were drawn with."""
    for _ in range(count):
        draw = Draw(random, Split.TRAINING)
        passages, missing = draw_context(draw, Facts(draw), SCALE, first=1)
        yield draw, passages, missing


def test_an_answer_cites_the_only_passage_that_states_its_fact(random):
    for draw, passages, _ in contexts(random):
        for passage in passages:
            for fact in passage.facts:
                question = ask_for(draw, fact, passage.number)
                stating = [
                    other.number
                    for other in passages
                    if any(names(text, fact.entity) and holds(text, fact.value) for text in other.sentences)
                ]
                assert stating == [passage.number]
                assert (question.value, question.mark) == (fact.value, f"[{passage.number}]")
                assert fact.value in question.answer
                assert question.answer.endswith(f" [{passage.number}].")


def test_what_is_asked_in_vain_is_stated_nowhere(random):
    for _, passages, missing in contexts(random):
        stated = {(fact.relation.name, fact.entity) for passage in passages for fact in passage.facts}
        assert len(missing) == SCALE.absent
        assert not stated & {(fact.relation.name, fact.entity) for fact in missing}


def test_what_is_looked_for_is_in_the_sentence_that_is_named(random):
    for draw, passages, _ in contexts(random):
        for entity, passage in named_once(passages):
            mentions = [other.number for other in passages for text in other.sentences if names(text, entity)]
            assert mentions == [passage.number]
            assert locate(draw, entity, passage).answer == f"Passage [{passage.number}]."
            sentence = find(draw, entity, passage).answer.removesuffix(f" [{passage.number}].") + "."
            assert sentence in passage.sentences


def test_there_are_questions_in_vain_and_passages_that_come_later(random):
    drawn = dialogues(random)
    assert any(message["content"] == NOT_IN_CONTEXT for messages in drawn for message in messages)
    assert any(re.search(r"^\[2\]", m["content"], re.MULTILINE) for messages in drawn for m in messages[2:])


def test_no_question_of_the_exam_is_in_training(random):
    trained = {message["content"] for messages in dialogues(random, 2000) for message in messages}
    exam = Exam(1)
    asked = {question.text for _ in range(300) for question in exam.turns().questions}
    assert len(asked) > 900
    assert not asked & trained

"""The exam: one passage states the answer, absent facts are absent, and the judge takes nothing but the right answer."""

import re

import pytest

from appliance.reading.exam import Exam, is_exact
from appliance.reading.passages import NOT_IN_CONTEXT, Question

OPENS = Question("When does the mill open?", "The mill opens at 08:30 [2].", "08:30", "[2]")
ABSENT = Question("Who owns the mill?", NOT_IN_CONTEXT)
VALUES = ("08:30", "17:00", "Room 8")


def passages(item):
    return re.split(r"\n(?=\[\d+\] )", item.context)


@pytest.mark.parametrize(
    ("reply", "exact"),
    [
        ("The mill opens at 08:30 [2].", True),
        ("08:30 [2]", True),
        ("The mill opens at 08:30 [1].", False),
        ("The mill opens at 08:30.", False),
        ("The mill opens at 08:30 [1] [2].", False),
        ("The mill opens at 17:00 [2].", False),
        ("The mill opens at 08:301 [2].", False),
        ("The mill opens at 108:30 [2].", False),
        ("The mill opens at 08:30 and closes at 17:00 [2].", False),
        (NOT_IN_CONTEXT, False),
        ("", False),
    ],
)
def test_an_answer_is_exact_if_it_has_the_fact_its_mark_and_nothing_else(reply, exact):
    assert is_exact(reply, OPENS, VALUES) is exact


@pytest.mark.parametrize(
    ("reply", "exact"), [(NOT_IN_CONTEXT, True), ("Room 8 [1].", False), ("I do not know.", False)]
)
def test_an_absent_fact_must_be_called_absent(reply, exact):
    assert is_exact(reply, ABSENT, VALUES) is exact


@pytest.mark.parametrize("part", ["single_passage", "distractors", "turns"])
def test_the_passage_that_is_cited_states_the_fact_and_no_other_does(part):
    exam = Exam(3)
    for _ in range(200):
        item = getattr(exam, part)()
        lines = dict(passage.split(" ", 1) for passage in passages(item))
        for question in item.questions:
            if question.value:
                assert question.value in lines[question.mark]
                assert is_exact(question.answer, question, item.values)


def test_the_distractors_are_three():
    exam = Exam(4)
    assert all(len(passages(exam.distractors())) == 4 for _ in range(50))
    assert all(len(passages(exam.single_passage())) == 1 for _ in range(50))


def test_the_same_seed_writes_the_same_exam_and_another_another():
    first, second, other = ([Exam(seed).turns() for _ in range(5)] for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_what_is_asked_in_vain_is_not_stated():
    exam = Exam(5)
    for _ in range(200):
        (question,) = exam.absent().questions
        assert not question.value
        assert question.answer == NOT_IN_CONTEXT

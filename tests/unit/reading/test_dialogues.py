"""Training dialogues: every answer is right by construction, and nothing of the exam is in them."""

import re

from appliance.reading.dialogues import Scale, draw_dialogue
from appliance.reading.exam import Exam
from appliance.reading.passages import NOT_IN_CONTEXT

SCALE = Scale(passages=4, facts=3, fillers=2, questions=6, absent=2)


def dialogues(random, count=400):
    return [draw_dialogue(random, SCALE) for _ in range(count)]


def passages(messages):
    """The passages that a dialogue has shown so far, by number."""
    text = "\n".join(message["content"] for message in messages if message["role"] != "assistant")
    return dict(re.findall(r"^\[(\d+)\] ((?:(?!^\[)[\s\S])*)", text, re.MULTILINE))


def test_users_and_the_assistant_take_turns_after_at_most_one_system_message(random):
    for messages in dialogues(random):
        roles = [message["role"] for message in messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert len(turns) >= 2


def test_a_cited_passage_was_shown_and_states_the_fact(random):
    cited = 0
    for messages in dialogues(random):
        for place, message in enumerate(messages):
            found = re.fullmatch(r"(.*) \[(\d+)\]\.", message["content"])
            if message["role"] == "assistant" and found and found[1] != "Passage":
                text, number = found.groups()
                shown = passages(messages[:place])[number]
                # The value ends or begins the answer's wording; its last word is in the passage in any case.
                assert set(re.findall(r"\w+", text)) & set(re.findall(r"\w+", shown))
                cited += 1
    assert cited > 500


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

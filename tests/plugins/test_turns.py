"""The prompts of a search by turns: the question and all feedback so far, the oldest left out for want of room."""

from __future__ import annotations

from typing import Any

import pytest

from nsd.plugins.chat import prompt_ids
from nsd.plugins.models import load_tokenizer
from nsd.plugins.trainers.turns import next_turn

QUESTION = "Ann has 3 apples and buys 4. How many has she?\n"
FIRST, SECOND, THIRD = "Step 1 is wrong: 3 + 4 is 7, not 8.", "A step is missing.", "There is no answer."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("builtin:wordmath-1m")


def test_all_feedback_stands_behind_the_question_in_the_order_of_the_attempts(tokenizer: Any) -> None:
    prompt, shown = next_turn(QUESTION, [FIRST, SECOND], tokenizer, 10_000)
    words = "\nThe following is feedback from your unsuccessful earlier attempt:\n\n"
    assert prompt == f"{QUESTION}{words}{FIRST}{words}{SECOND}\n\nCorrectly solve the original question."
    assert shown == 2


def test_the_first_turn_is_the_plain_question(tokenizer: Any) -> None:
    assert next_turn(QUESTION, [], tokenizer, 10_000) == (QUESTION, 0)


def test_an_attempt_whose_verdict_says_nothing_leaves_nothing(tokenizer: Any) -> None:
    assert next_turn(QUESTION, [None, FIRST, " "], tokenizer, 10_000) == next_turn(QUESTION, [FIRST], tokenizer, 10_000)


def test_the_oldest_feedback_goes_where_there_is_no_room(tokenizer: Any) -> None:
    every = [FIRST, SECOND, THIRD]
    whole, _ = next_turn(QUESTION, every, tokenizer, 10_000)
    room = len(prompt_ids(tokenizer, whole)) - 1
    assert next_turn(QUESTION, every, tokenizer, room) == (next_turn(QUESTION, every[1:], tokenizer, 10_000)[0], 2)


def test_a_prompt_as_long_as_the_room_is_not_cut(tokenizer: Any) -> None:
    whole, _ = next_turn(QUESTION, [FIRST, SECOND], tokenizer, 10_000)
    assert next_turn(QUESTION, [FIRST, SECOND], tokenizer, len(prompt_ids(tokenizer, whole))) == (whole, 2)


def test_without_any_room_the_question_stands_alone(tokenizer: Any) -> None:
    assert next_turn(QUESTION, [FIRST], tokenizer, 1) == (QUESTION, 0)


def test_the_last_turn_of_a_chat_holds_the_feedback(tokenizer: Any) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    room = 10_000
    prompt, shown = next_turn(chat, [], tokenizer, room)
    assert (prompt, shown) == (chat, 0)
    tokenizer_with_template = load_tokenizer("builtin:wordmath-1m")
    tokenizer_with_template.chat_template = "{% for one in messages %}{{ one.content }}{% endfor %}"
    told, _ = next_turn(chat, [FIRST], tokenizer_with_template, room)
    assert not isinstance(told, str)
    assert told[0] == chat[0]
    assert FIRST in told[1]["content"]

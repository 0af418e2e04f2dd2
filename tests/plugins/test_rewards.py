"""Reward terms."""

from __future__ import annotations

from nsd.plugins.api import Question
from nsd.plugins.rewards.correct import Correct
from nsd.plugins.rewards.finished import Finished
from nsd.plugins.rewards.one_answer import OneAnswer
from nsd.plugins.verifiers.numeric import Numeric

TEXTS = ["no answer", "#### 5", "#### 5 #### 5", "#### 6"]
QUESTIONS = [Question(id=str(i), text="q", answer="5.0") for i in range(4)]
CUT = [True, False, False, True]


def test_correct_compares_with_the_label() -> None:
    assert Correct().rewards(TEXTS, QUESTIONS, CUT, Numeric()) == [0, 1, 1, 0]


def test_correct_is_zero_without_a_label() -> None:
    assert Correct().rewards(["#### 5"], [Question(id="q", text="q")], [False], Numeric()) == [0]


def test_one_answer_bonus_and_penalty() -> None:
    assert OneAnswer().rewards(TEXTS, QUESTIONS, CUT, Numeric()) == [0, 0.1, -0.1, 0.1]
    other = OneAnswer(OneAnswer.Config(once=1, several=-2, marker="5"))
    assert other.rewards(TEXTS, QUESTIONS, CUT, Numeric()) == [0, 1, -2, 0]


def test_degenerate_loop_is_penalised() -> None:
    assert OneAnswer().rewards(["####. ####. ####."], QUESTIONS[:1], [False], Numeric()) == [-0.1]


def test_finished_rewards_ending_before_the_limit() -> None:
    assert Finished().rewards(TEXTS, QUESTIONS, CUT, Numeric()) == [0, 0.1, 0.1, 0]


def test_weights_default_to_one() -> None:
    assert [term().config.weight for term in (Correct, OneAnswer, Finished)] == [1, 1, 1]

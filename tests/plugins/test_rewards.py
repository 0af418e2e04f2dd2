"""Reward terms."""

from __future__ import annotations

from nsd.plugins.api import Question, Rollout, StopReason
from nsd.plugins.rewards.correct import Correct
from nsd.plugins.rewards.finished import Finished
from nsd.plugins.rewards.one_answer import OneAnswer
from nsd.plugins.verifiers.numeric import Numeric


def rollout(text: str, cut: bool = False, label: str | None = "5.0") -> Rollout:
    question = Question(id="q", text="q", answer=label)
    reason = StopReason.LENGTH if cut else StopReason.STOP
    return Rollout(question, 0, text, (1, 2), reason, Numeric().score(text, question))


ROLLOUTS = [rollout("no answer", cut=True), rollout("#### 5"), rollout("#### 5 #### 5"), rollout("#### 6", cut=True)]


def test_correct_compares_with_the_label() -> None:
    assert Correct().rewards(ROLLOUTS) == [0, 1, 1, 0]


def test_correct_is_zero_without_a_label() -> None:
    assert Correct().rewards([rollout("#### 5", label=None)]) == [0]


def test_one_answer_bonus_and_penalty() -> None:
    assert OneAnswer().rewards(ROLLOUTS) == [0, 0.1, -0.1, 0.1]
    other = OneAnswer(OneAnswer.Config(once=1, several=-2, marker="5"))
    assert other.rewards(ROLLOUTS) == [0, 1, -2, 0]


def test_degenerate_loop_is_penalised() -> None:
    assert OneAnswer().rewards([rollout("####. ####. ####.")]) == [-0.1]


def test_finished_rewards_ending_before_the_limit() -> None:
    assert Finished().rewards(ROLLOUTS) == [0, 0.1, 0.1, 0]


def test_weights_default_to_one() -> None:
    assert [term().config.weight for term in (Correct, OneAnswer, Finished)] == [1, 1, 1]

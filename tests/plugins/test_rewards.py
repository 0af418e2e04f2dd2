"""Reward terms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from nsd.plugins.api import Question, Rollout, Score, StopReason, TokenStatistics
from nsd.plugins.registry import BUILT_IN, find
from nsd.plugins.rewards.cluster_share import ClusterShare
from nsd.plugins.rewards.correct import Correct
from nsd.plugins.rewards.finished import Finished
from nsd.plugins.rewards.format import Format
from nsd.plugins.rewards.one_answer import OneAnswer
from nsd.plugins.rewards.random import Random
from nsd.plugins.rewards.self_certainty import SelfCertainty
from nsd.plugins.trainers.grpo import Grpo
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
    assert all(find("reward", name)().config.weight == 1 for name in BUILT_IN["reward"])


def test_format_asks_the_verifier_or_a_pattern() -> None:
    assert Format().rewards(ROLLOUTS) == [0, 1, 1, 1]
    assert Format(Format.Config(pattern="5.*5")).rewards([*ROLLOUTS, rollout("5\n5")]) == [0, 0, 1, 0, 1]
    with pytest.raises(ValidationError, match="is no regular expression"):
        Format.Config(pattern="(")


def test_random_looks_at_nothing_and_keeps_its_probability() -> None:
    torch.manual_seed(5)
    drawn = Random(Random.Config(probability=0.25)).rewards([rollout("#### 5")] * 4000)
    assert set(drawn) == {0.0, 1.0} and 0.22 < sum(drawn) / 4000 < 0.28  # 4.4 standard errors
    torch.manual_seed(5)
    assert Random(Random.Config(probability=0.25)).rewards([rollout("none")] * 4000) == drawn
    assert Random(Random.Config(probability=1)).rewards(ROLLOUTS) == [1, 1, 1, 1]


def group(*answers: str | None, name: str = "q") -> list[Rollout]:
    question = Question(name, "?")
    return [
        Rollout(question, place, "", (1,), StopReason.STOP, Score(0, False, answer))
        for place, answer in enumerate(answers)
    ]


def test_cluster_share_is_the_share_of_the_verifiers_class_in_the_question() -> None:
    reward = ClusterShare()
    reward.verifier = Numeric()
    # 5 and 5.0000001 are one class to this verifier
    assert reward.rewards(group("5", "5.0000001", "6", None)) == [0.5, 0.5, 0.25, 0]
    assert reward.rewards(group("5", "6", "7", None)) == [0, 0, 0, 0]  # nobody agrees
    assert reward.rewards([*group("5", "5"), *group("5", "6", name="other")]) == [1, 1, 0, 0]
    assert reward.rewards([*group("5", "6"), *group("5", "5", name="other")]) == [0, 0, 1, 1]


def test_self_certainty_is_the_mean_over_the_tokens() -> None:
    one, none = (replace(ROLLOUTS[0], statistics=TokenStatistics((), (), found)) for found in ((1.0, 4.0), ()))
    assert SelfCertainty().rewards([one, none]) == [2.5, 0.0]


@pytest.mark.parametrize(
    ("rewards", "prompts", "steps", "fits"),
    [
        (["correct"], 1, 1, [True, True, True, False]),  # 8 rows on 1, 2, 4 and 3 processes
        (["correct", "cluster_share"], 1, 1, [True, False, False, False]),
        (["cluster_share"], 2, 1, [True, True, False, False]),
        (["cluster_share"], 1, 2, [True, True, False, False]),  # 16 rows are sampled at once
    ],
)
def test_processes_do_not_cut_a_group_within_which_a_reward_compares(
    rewards: list[str], prompts: int, steps: int, fits: list[bool]
) -> None:
    config = {"num_generations": 8, "prompts_per_step": prompts, "steps_per_generation": steps, "rewards": rewards}
    trainer = Grpo(Grpo.Config.model_validate(config))
    assert [trainer.shares(count) for count in (1, 2, 4, 3)] == fits

"""What rewards are given: rollouts judged once, and the numbers of their tokens where a reward asks for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from nsd.plugins.api import Example, ModelRef, Question, Reward, Rollout, Score, StopReason, Verifier, old_reward
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.models import load_model
from nsd.plugins.registry import plugin
from nsd.plugins.rewards.correct import Correct
from nsd.plugins.rewards.finished import Finished
from nsd.plugins.trainers._grpo import TrlRollouts, reward_function
from nsd.plugins.trainers._rewards import load_rewards
from nsd.plugins.verifiers.numeric import Numeric
from tiny_model import make_tiny_model
from training_job import Events, job, train

QUESTIONS = [Question(id=str(number), text="q", answer=str(number)) for number in range(3)]


def fed(verifier: Verifier, rewards: Sequence[Reward], samples: Sequence[int]) -> TrlRollouts:
    """The rollouts of a training on the questions, whose trainer numbers them like this and ends them with token 1."""
    examples = [Example(question, "", question.answer, None, "labeled") for question in QUESTIONS]
    made = job(Path(), Path(), Events(), verifier=verifier, examples=examples)
    rollouts = TrlRollouts(made, [(f"reward {place}", reward) for place, reward in enumerate(rewards)])
    rollouts.bind(SimpleNamespace(eos_token_ids=[1], nsd_samples=list(samples), state=SimpleNamespace(global_step=0)))
    return rollouts


class Counting(Numeric):
    """Notes what it judges at once."""

    calls: ClassVar[list[list[str]]] = []

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        self.calls.append([text for text, _ in items])
        return super().score_many(items)


def test_all_rewards_of_a_step_share_one_judgement() -> None:
    Counting.calls.clear()
    rollouts = fed(Counting(), [Correct(), Finished()], [0, 1, 0])
    asked = {"prompts": [""] * 3, "completions": ["#### 2", "#### 1", "#### 2"], "example": [2, 2, 1]}
    step: dict[str, list[list[int]]] = {"completion_ids": [[5, 1], [5], [5, 1]]}
    functions = [reward_function(name, reward, rollouts) for name, reward in rollouts.rewards]
    assert [one(**asked, **step) for one in functions] == [[1, 0, 0], [0.1, 0, 0.1]]
    assert Counting.calls == [["#### 2", "#### 1", "#### 2"]]
    functions[0](**asked, completion_ids=[[5, 1], [5], [5, 1]])
    assert len(Counting.calls) == 2, "another step is judged anew"


def test_a_verifier_that_fails_or_loses_a_verdict_ends_the_stage() -> None:
    class Fails(Verifier):
        def extract(self, completion: str) -> str | None:
            raise KeyError("oops")

    class Loses(Numeric):
        def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
            return super().score_many(items)[1:]

    for verifier, message in ((Fails(), "the verifier Fails failed: KeyError"), (Loses(), "1 verdicts for 2 rollouts")):
        with pytest.raises(StageFailed, match=message):
            fed(verifier, [Correct()], [0, 1]).of([""] * 2, ["a", "b"], [[1], [1]], [0, 0])


def test_many_verdicts_are_those_of_one_by_one() -> None:
    items = [("#### 2", QUESTIONS[2]), ("#### 2", QUESTIONS[1]), ("none", QUESTIONS[0])]
    assert Numeric().score_many(items) == [Numeric().score(text, question) for text, question in items]
    assert [score.correct for score in Numeric().score_many(items)] == [True, False, False]


# --------------------------------------------------------------------------- the old form


@plugin("reward", "test_old_form")
class Old(Reward):
    """As rewards were written before there were rollouts."""

    def rewards(self, completions, questions, truncated, verifier):  # type: ignore[no-untyped-def, override]
        return [0.0 for _ in completions]


def test_a_reward_in_the_old_form_is_told_the_new_one() -> None:
    with pytest.raises(InputError, match=r"reward 'test_old_form': .*write rewards\(self, rollouts\)"):
        load_rewards([{"use": "test_old_form"}])


def test_only_what_cannot_be_called_with_rollouts_is_the_old_form() -> None:
    class Wide(Reward):
        def rewards(self, rollouts: Sequence[Rollout], *more: int, scale: float = 1.0) -> list[float]:
            return [scale for _ in rollouts]

    assert old_reward(Old) is not None
    assert old_reward(Wide) is old_reward(Correct) is old_reward(Numeric) is None


# --------------------------------------------------------------------------- numbers of the tokens


@plugin("reward", "test_wants_numbers")
class Wants(Reward):
    """Keeps rollouts with the numbers of their tokens."""

    needs_logprobs = True
    needs_statistics = True
    seen: ClassVar[list[Rollout]] = []

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        self.seen.extend(rollouts)
        return [sum(rollout.logprobs or ()) for rollout in rollouts]


@plugin("reward", "test_wants_none")
class WantsNone(Wants):
    """The same without asking for them."""

    needs_logprobs = False
    needs_statistics = False


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def config(reward: str) -> dict[str, object]:
    return {"steps": 1, "prompts_per_step": 2, "num_generations": 4, "max_tokens": 40, "temperature": 0.9} | {
        "rewards": [reward]
    }


@pytest.mark.slow
def test_numbers_of_a_rollouts_tokens_are_those_of_a_plain_forward_pass(model: Path, tmp_path: Path) -> None:
    Wants.seen.clear()
    made = job(tmp_path, model, Events())
    train("grpo", config("test_wants_numbers"), made)
    start, tokenizer = load_model(ModelRef(str(model)), device="cpu")
    prompts = {example.question.id: example.prompt for example in made.examples}
    assert len(Wants.seen) == 8 and len({len(rollout.tokens) for rollout in Wants.seen}) > 1
    for rollout in Wants.seen:
        assert rollout.logprobs is not None and rollout.statistics is not None
        ids = tokenizer(prompts[rollout.question.id])["input_ids"]
        with torch.no_grad():
            logits = start(torch.tensor([[*ids, *rollout.tokens]])).logits[0, len(ids) - 1 : -1].double()
        rows = logits.log_softmax(-1)
        drawn = [float(row[token]) for row, token in zip(rows, rollout.tokens, strict=True)]
        assert rollout.logprobs == pytest.approx(drawn, abs=1e-4)
        entropy = [-sum(math.exp(p) * p for p in row.tolist()) for row in rows]
        assert rollout.statistics.entropy == pytest.approx(entropy, abs=1e-4)
        confidence = [-sum(sorted(row.tolist())[-20:]) / 20 for row in rows]
        assert rollout.statistics.confidence == pytest.approx(confidence, abs=1e-4)
        certainty = [float(row.logsumexp(-1) - row.mean()) for row in logits]
        assert rollout.statistics.certainty == pytest.approx(certainty, abs=1e-4)


@pytest.mark.slow
def test_a_rollout_has_them_only_where_they_are_asked_for(model: Path, tmp_path: Path) -> None:
    Wants.seen.clear()
    train("grpo", config("test_wants_none"), job(tmp_path, model, Events()))
    assert {(rollout.logprobs, rollout.statistics) for rollout in Wants.seen} == {(None, None)}
    assert {rollout.stop_reason for rollout in Wants.seen} <= {StopReason.STOP, StopReason.LENGTH}
    assert [rollout.sample for rollout in Wants.seen] == [0, 1, 2, 3] * 2

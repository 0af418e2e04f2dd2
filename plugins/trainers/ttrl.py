"""Test-time reinforcement learning (arXiv 2504.16084): the reward is agreement with the group's own majority.

    trainer: {use: ttrl, n_votes: 64, num_generations: 32, steps: 200}

Each question gets `n_votes` rollouts; the answer that most of them give, by the verifier's classes, is its label for
this step; the first `num_generations` of them are trained on, with their agreement as reward. No true answer is looked
at, so the sources `questions` and `test_questions` do. A group without any answer is rewarded 0 throughout.

The loss is GRPO's: reward less the group's mean, over its standard deviation, the ratio clipped, and beta times the KL
to the start model; mean over tokens. How often the majority is right is computed from the kept rollouts, outside of the
training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from nsd.plugins.registry import plugin
from nsd.plugins.trainers._rollout_config import RolloutConfig
from nsd.plugins.trainers.on_policy import OnPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from nsd.plugins.trainers._algorithm import Loop, Micro, Sampled


@plugin("trainer", "ttrl")
class Ttrl(OnPolicy):
    """Reinforcement learning against the model's own vote."""

    needs_votes = True

    class Config(RolloutConfig):
        learning_rate: float = Field(default=5e-7, gt=0)
        prompts_per_step: int = Field(default=8, ge=1)
        n_votes: int = Field(default=64, ge=2, description="Rollouts of each question that vote.")
        num_generations: int = Field(default=32, ge=2, description="The first so many of them are trained on.")
        beta: float = Field(default=0.001, ge=0, description="Weight of the KL to the start model.")
        epsilon: float = Field(default=0.2, gt=0)
        scale_rewards: bool = Field(
            default=True, description="Divide by the standard deviation of the group's rewards."
        )

        @model_validator(mode="after")
        def _enough_votes(self) -> Ttrl.Config:
            if self.n_votes < self.num_generations:
                raise ValueError(
                    f"n_votes {self.n_votes} is less than num_generations {self.num_generations}, which are taken from "
                    "the rollouts that vote"
                )
            return self

    config: Config

    def begin(self, loop: Loop) -> None:
        """Hold the start model, where the KL counts."""
        from nsd.plugins.trainers._teachers import Reference

        self.reference = Reference(loop) if self.config.beta else None

    def draws_per_question(self) -> int:
        """All that vote."""
        return self.config.n_votes

    def rewards_of(self, loop: Loop, sampled: Sampled) -> list[float]:
        """1 for a rollout whose answer is of the class of the group's majority, else 0."""
        from nsd.plugins.verifiers.voting import majority

        votes, found = self.config.n_votes, list[float]()
        for start in range(0, len(sampled.rollouts), votes):
            answers = [rollout.score.answer for rollout in sampled.rollouts[start : start + votes]]
            agreeing = set(majority(answers, loop.job.verifier).agreeing)
            found += [float(place in agreeing) for place in range(len(answers))]
        loop.note("majority_ratio", sum(found), len(found))
        return found

    def columns(self, loop: Loop, sampled: Sampled) -> dict[str, Tensor]:
        """The advantage of each trained rollout [R, 1], and the start model's log-probabilities [R, T]."""
        from nsd.plugins.trainers.advantages import centred_on_group

        rewards = sampled.grouped(self.config.n_votes)[:, : self.config.num_generations]
        advantages = centred_on_group(rewards, self.config.scale_rewards).reshape(-1, 1)
        if self.reference is None:
            return {"advantages": advantages}
        return {"advantages": advantages, "logp_reference": self.reference.logprobs(loop, sampled)}

    def loss(self, loop: Loop, model: Any, micro: Micro) -> Tensor:
        """Clipped policy loss and KL, mean over the step's tokens."""
        from nsd.plugins.trainers.advantages import clipped_policy_loss, reference_kl
        from nsd.plugins.trainers.losses import masked_token_mean

        seen, config = loop.forward(model, micro), self.config
        loop.note("entropy", (seen.entropy * micro.mask).sum().item(), micro.mask.sum().item())
        values = clipped_policy_loss(
            seen.logp, micro.logp_old(seen.logp), micro.columns["advantages"], config.epsilon, config.epsilon
        )
        if "logp_reference" in micro.columns:
            kl = reference_kl(seen.logp, micro.columns["logp_reference"])
            loop.note("kl", (kl * micro.mask).sum().item(), micro.mask.sum().item())
            values = values + config.beta * kl
        return masked_token_mean(values, micro.mask, micro.all_tokens)

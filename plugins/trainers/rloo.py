"""REINFORCE with a baseline; by default the mean of the question's other rollouts (RLOO, arXiv 2402.14740).

    trainer: {use: rloo, steps: 200, prompts_per_step: 8, num_generations: 8}
    trainer: {use: rloo, baseline: none}                   # plain REINFORCE

A rollout counts as one action. Its return is the reward less beta times log p(rollout) / p_start(rollout), summed over
its tokens; the loss is minus the advantage times the probability ratio, clipped as PPO's, averaged over rollouts. In
the first pass over a batch the ratio is 1 and its gradient that of the log-probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nsd.plugins.registry import plugin
from nsd.plugins.trainers._rollout_config import RewardedConfig
from nsd.plugins.trainers.on_policy import OnPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from nsd.plugins.trainers._algorithm import Loop, Micro, Sampled


@plugin("trainer", "rloo")
class Rloo(OnPolicy):
    """Policy gradient of whole rollouts."""

    class Config(RewardedConfig):
        baseline: Literal["leave_one_out", "running_mean", "none"] = Field(
            default="leave_one_out",
            description="What a return is compared with: the question's other rollouts, all rollouts of the steps "
            "before, or nothing (REINFORCE).",
        )
        beta: float = Field(default=0.05, ge=0, description="Weight of the KL to the start model, in the return.")
        epsilon: float = Field(default=0.2, gt=0, description="Clip of the ratio, where a batch is used again.")

        @property
        def compared(self) -> bool:
            """Whether what is learned is how rewards differ within groups."""
            return self.baseline == "leave_one_out"

    config: Config

    def begin(self, loop: Loop) -> None:
        """Hold the start model, where the KL counts."""
        from nsd.plugins.trainers._teachers import Reference

        self.reference = Reference(loop) if self.config.beta else None
        self.seen = loop_zeros(loop, 2)  # sum and number of the returns so far

    def columns(self, loop: Loop, sampled: Sampled) -> dict[str, Tensor]:
        """The advantage of each rollout, [R, 1]."""
        import torch

        from nsd.plugins.trainers.advantages import leave_one_out

        returns = sampled.grouped(self.config.num_generations)
        if self.reference is not None:
            model = loop.accelerator.unwrap_model(loop.model)
            logp = loop.logprobs(model, sampled) if sampled.logp_old is None else sampled.logp_old
            ratio = (logp - self.reference.logprobs(loop, sampled)) * sampled.mask
            loop.note("kl", ratio.sum().item(), sampled.mask.sum().item())
            returns = returns - self.config.beta * ratio.sum(1).view_as(returns)
        if self.config.baseline == "leave_one_out":
            advantages = leave_one_out(returns)
        elif self.config.baseline == "running_mean":
            advantages = returns - self.seen[0] / self.seen[1].clamp(min=1)
            self.seen = self.seen + loop.total(torch.stack([returns.sum(), returns.new_tensor(returns.numel())]))
        else:
            advantages = returns
        return {"advantages": advantages.reshape(-1, 1)}

    def loss(self, loop: Loop, model: Any, micro: Micro) -> Tensor:
        """Minus advantage times ratio of whole rollouts, over the step's rollouts."""
        from nsd.plugins.trainers.advantages import clipped_policy_loss

        seen = loop.forward(model, micro)
        old = micro.logp_old(seen.logp)
        loop.note("entropy", (seen.entropy * micro.mask).sum().item(), micro.mask.sum().item())
        whole, before = ((one * micro.mask).sum(1, keepdim=True) for one in (seen.logp, old))
        losses = clipped_policy_loss(
            whole, before, micro.columns["advantages"], self.config.epsilon, self.config.epsilon
        )
        return losses.sum() / micro.rows

    def state(self) -> dict[str, Tensor]:
        """The running mean's sum and number."""
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.seen = state["seen"].to(self.seen.device)


def loop_zeros(loop: Loop, size: int) -> Tensor:
    """[size] zeros where the loop computes."""
    import torch

    return torch.zeros(size, device=loop.args.device)

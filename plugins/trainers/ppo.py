"""Proximal policy optimisation (arXiv 1707.06347) with a value head, on whole-answer rewards.

    trainer: {use: ppo, steps: 200, prompts_per_step: 8, num_generations: 4, value_learning_rate: 1e-4}

Each token earns -beta (log p - log p_start), and a rollout's last token its reward too; a rollout that was cut at the
token limit ends there. Advantages are GAE's (arXiv 1506.02438), whitened over the sampled batch. The value of a place
is a linear map of the policy's hidden state there, which starts at 0 and trains the policy's weights with it only where
`value_trains_trunk` says so. The value head is no part of the weights that the training leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nsd.plugins.registry import plugin
from nsd.plugins.trainers._rollout_config import RewardedConfig
from nsd.plugins.trainers.on_policy import OnPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from nsd.plugins.trainers._algorithm import Loop, Micro, Sampled


@plugin("trainer", "ppo")
class Ppo(OnPolicy):
    """Clipped policy gradient with learned values."""

    wants_logp_old = True

    class Config(RewardedConfig):
        num_iterations: int = Field(default=4, ge=1, description="How often a sampled batch is learned from.")
        beta: float = Field(default=0.05, ge=0, description="Weight of the KL to the start model, in the rewards.")
        epsilon: float = Field(default=0.2, gt=0, description="Clip of the ratio.")
        value_clip: float = Field(default=0.2, gt=0, description="How far a value may move from the sampled one.")
        value_weight: float = Field(default=0.1, ge=0, description="Weight of the value loss.")
        value_learning_rate: float | None = Field(default=None, gt=0, description="Of the head; null: learning_rate.")
        value_trains_trunk: bool = Field(default=True, description="The value loss reaches the policy's weights.")
        gamma: float = Field(default=1.0, gt=0, le=1)
        lam: float = Field(default=0.95, ge=0, le=1, description="GAE's lambda.")

        @property
        def compared(self) -> bool:
            """Whether what is learned is how rewards differ within groups: values are the baseline here."""
            return False

    config: Config

    def begin(self, loop: Loop) -> None:
        """Give the model a value head of zeros, which the optimizer will find, and hold the start model."""
        import torch

        from nsd.plugins.trainers._rollouts import bare
        from nsd.plugins.trainers._teachers import Reference

        self.reference = Reference(loop) if self.config.beta else None
        model = bare(loop.model)
        width = model.get_output_embeddings().in_features
        self.head = torch.nn.Linear(width, 1, device=loop.args.device, dtype=torch.float32)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        loop.extra_parameters(self.head, self.config.value_learning_rate)

    def columns(self, loop: Loop, sampled: Sampled) -> dict[str, Tensor]:
        """Advantages, returns and values of each token, [R, T]."""
        import torch

        from nsd.plugins.trainers.advantages import generalised_advantages, token_rewards, whitened

        config, mask = self.config, sampled.mask
        assert sampled.logp_old is not None
        logp, reference = sampled.logp_old, sampled.logp_old
        if self.reference is not None:
            reference = self.reference.logprobs(loop, sampled)
            loop.note("kl", ((logp - reference) * mask).sum().item(), mask.sum().item())
        outcome = torch.tensor(sampled.of_trained(sampled.rewards), device=mask.device)
        rewards = token_rewards(outcome, logp, reference, mask, config.beta)
        values = self._values(loop, sampled) * mask
        advantages, returns = generalised_advantages(rewards, values, mask, config.gamma, config.lam)
        loop.note("value/mean", values.sum().item(), mask.sum().item())
        return {"advantages": whitened(advantages, mask, loop.total), "returns": returns, "values": values}

    def loss(self, loop: Loop, model: Any, micro: Micro) -> Tensor:
        """Policy and value loss, each the mean over the step's tokens."""
        from nsd.plugins.trainers.advantages import clipped_policy_loss, clipped_value_loss
        from nsd.plugins.trainers.losses import masked_token_mean

        config, columns, seen = self.config, micro.columns, loop.forward(model, micro)
        loop.note("entropy", (seen.entropy * micro.mask).sum().item(), micro.mask.sum().item())
        hidden = seen.hidden if config.value_trains_trunk else seen.hidden.detach()
        values = self._of(hidden)
        policy = clipped_policy_loss(
            seen.logp, columns["logp_old"], columns["advantages"], config.epsilon, config.epsilon
        )
        of_values = clipped_value_loss(values, columns["values"], columns["returns"], config.value_clip)
        loop.note("value/loss", (of_values * micro.mask).sum().item(), micro.mask.sum().item())
        return masked_token_mean(policy + config.value_weight * of_values, micro.mask, micro.all_tokens)

    def _of(self, hidden: Tensor) -> Tensor:
        value: Tensor = self.head(hidden.float()).squeeze(-1)
        return value

    def _values(self, loop: Loop, sampled: Sampled) -> Tensor:
        import torch

        from nsd.plugins.trainers._rollouts import evaluating

        model = loop.accelerator.unwrap_model(loop.model)
        with torch.no_grad(), evaluating(model):
            return torch.cat(
                [self._of(one) for one in loop.hidden(model, sampled.ids, sampled.attention, sampled.mask)]
            )

    def state(self) -> dict[str, Tensor]:
        """The value head."""
        return dict(self.head.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.head.load_state_dict(dict(state))

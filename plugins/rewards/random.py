"""`random`: a coin for each rollout, whatever it says: the control for "any reward would have done".

    rewards: [{use: random, probability: 0.5}]

Some models improve under rewards that carry no information (spurious rewards, arXiv 2506.10947); an arm with this one
shows how far. The coins come from torch's own stream on the CPU, which a checkpoint keeps, so that a resumed run draws
the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from nsd.plugins.api import PluginConfig, Reward, Rollout
from nsd.plugins.registry import plugin


@plugin("reward", "random")
class Random(Reward):
    """1 with a fixed probability, else 0."""

    class Config(PluginConfig):
        weight: float = 1.0
        probability: float = Field(default=0.5, ge=0, le=1, description="Of a reward of 1.")

    config: Config

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        """1.0 or 0.0 for each rollout."""
        import torch

        coins: list[float] = torch.rand(len(rollouts), device="cpu").lt(self.config.probability).float().tolist()
        return coins

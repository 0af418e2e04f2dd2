"""`finished`: a small bonus for ending before the token limit.

    rewards: [correct, {use: finished, bonus: 0.1}]

The shaping term the noisy-student study proposed against runaway generations.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from nsd.plugins.api import PluginConfig, Reward, Rollout
from nsd.plugins.registry import plugin


@plugin("reward", "finished")
class Finished(Reward):
    """Bonus for a completion that was not cut."""

    class Config(PluginConfig):
        weight: float = 1.0
        bonus: float = Field(default=0.1, description="Reward for a completion that ended by itself.")

    config: Config

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        """`bonus` for each rollout that was not cut, else 0."""
        return [0.0 if rollout.truncated else self.config.bonus for rollout in rollouts]

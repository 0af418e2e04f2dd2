"""`one_answer`: a small bonus for stating the final answer exactly once, a penalty for stating it several times.

    rewards: [correct, {use: one_answer}]

The shaping term the noisy-student study proposed against `####. ####.` loops: +0.1 for exactly one `####`, -0.1 for
more than one, 0 for none. Both are fields, so `weight` stays 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from nsd.plugins.api import PluginConfig, Reward, Rollout
from nsd.plugins.registry import plugin


@plugin("reward", "one_answer")
class OneAnswer(Reward):
    """Bonus for one answer marker, penalty for several."""

    class Config(PluginConfig):
        weight: float = 1.0
        once: float = Field(default=0.1, description="Reward for the marker standing there exactly once.")
        several: float = Field(default=-0.1, description="Reward for the marker standing there more than once.")
        marker: str = Field(default="####", min_length=1)

    config: Config

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        """`once`, `several` or 0 for each rollout."""
        counts = [rollout.text.count(self.config.marker) for rollout in rollouts]
        return [self.config.once if count == 1 else self.config.several if count > 1 else 0.0 for count in counts]

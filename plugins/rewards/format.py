r"""`format`: 1 for a completion of the asked form, whether its answer is right or not.

    rewards: [format]                                    # the verifier finds an answer in it
    rewards: [{use: format, pattern: '\\boxed\{.+\}'}]   # it matches this regular expression somewhere

Beside `correct` it is a shaping term; alone it is the control that tells learning to answer from learning the form
(spurious rewards, arXiv 2506.10947). A verifier that takes the last number anywhere for an answer finds one nearly
always: give a pattern then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field, field_validator

from nsd.plugins.api import PluginConfig, Reward, Rollout
from nsd.plugins.registry import plugin


@plugin("reward", "format")
class Format(Reward):
    """Form alone."""

    class Config(PluginConfig):
        weight: float = 1.0
        pattern: str | None = Field(default=None, min_length=1, description="Regular expression; null: any answer.")

        @field_validator("pattern")
        @classmethod
        def _compiles(cls, pattern: str | None) -> str | None:
            try:
                if pattern is not None:
                    re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
            return pattern

    config: Config

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        """1.0 or 0.0 for each rollout."""
        if self.config.pattern is None:
            return [float(rollout.score.answer is not None) for rollout in rollouts]
        pattern = re.compile(self.config.pattern, re.DOTALL)
        return [float(pattern.search(rollout.text) is not None) for rollout in rollouts]

"""`correct`: 1 for a completion whose answer equals the (pseudo-)label by the spec's verifier, else 0."""

from __future__ import annotations

from collections.abc import Sequence

from nsd.plugins.api import Reward, Rollout
from nsd.plugins.registry import plugin


@plugin("reward", "correct")
class Correct(Reward):
    """Correctness against the label."""

    needs_answer = True

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        """1.0 or 0.0 for each rollout."""
        return [float(rollout.score.correct) for rollout in rollouts]

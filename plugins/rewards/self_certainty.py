"""`self_certainty`: how far from uniform the model's distributions were while it wrote, in nats (Intuitor).

    conditions: {intuitor: {train_on: [questions], trainer: {use: grpo, rewards: [self_certainty], beta: 0.005}}}

The mean over a rollout's tokens of logsumexp(z) - mean(z), z the logits before temperature (arXiv 2505.19590): up to
the logarithm of the vocabulary's size this is the KL divergence from the uniform distribution. It looks at no answer. A
rollout without a token gets 0. One more forward pass over the rollouts pays for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsd.plugins.api import Reward, Rollout
from nsd.plugins.registry import plugin


@plugin("reward", "self_certainty")
class SelfCertainty(Reward):
    """Mean certainty of a rollout's tokens."""

    needs_statistics = True

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        """At least 0, in nats, for each rollout."""
        found = []
        for rollout in rollouts:
            assert rollout.statistics is not None  # asked for above
            certainty = rollout.statistics.certainty
            found.append(sum(certainty) / len(certainty) if certainty else 0.0)
        return found

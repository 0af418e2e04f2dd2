"""`avg_at_k`: the share of a question's k completions that are correct (avg@k).

    eval: {use: avg_at_k, k: 16, temperature: 0.6, top_p: 0.95}

The same mean as `accuracy`, with less noise from sampling. The k values of a question are not independent:
compare runs on the per-question means, never on pooled completions.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from nsd.plugins.api import Protocol, Sampling, Scored, Verifier
from nsd.plugins.registry import plugin
from nsd.plugins.sampled import SampledConfig


@plugin("protocol", "avg_at_k")
class AvgAtK(Protocol):
    """Mean correctness of k completions."""

    version = 2

    class Config(SampledConfig):
        k: int = Field(default=8, ge=1, description="Completions of each question.")

    config: Config

    def metric(self) -> str:
        return f"avg@{self.config.k}"

    def sampling(self) -> Sampling:
        """k completions."""
        return self.config.sampling(self.config.k)

    def value(self, scored: Sequence[Scored], verifier: Verifier) -> float:
        """Correct completions / k; a completion that is not there counts as wrong."""
        k = self.config.k
        return sum(item.score.correct for item in scored[:k]) / k

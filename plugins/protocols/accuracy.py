"""`accuracy`: one completion of each test question, 1 if it is correct, else 0.

eval: {use: accuracy, temperature: 0.1, max_tokens: 256}
"""

from __future__ import annotations

from collections.abc import Sequence

from nsd.plugins.api import Protocol, Sampling, Scored, Verifier
from nsd.plugins.registry import plugin
from nsd.plugins.sampled import SampledConfig


@plugin("protocol", "accuracy")
class Accuracy(Protocol):
    """Share of questions whose one completion is correct."""

    version = 2

    class Config(SampledConfig):
        pass

    config: Config

    def metric(self) -> str:
        return "accuracy"

    def sampling(self) -> Sampling:
        """One completion."""
        return self.config.sampling(1)

    def value(self, scored: Sequence[Scored], verifier: Verifier) -> float:
        """1 or 0; 0 where there is no completion."""
        return float(bool(scored) and scored[0].score.correct)

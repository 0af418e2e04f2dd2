"""`pass_at_k`: the chance that at least one of k completions is correct (pass@k), estimated from n >= k.

    eval: {use: pass_at_k, k: 4, n: 16, temperature: 0.8}

The estimator is the unbiased one of Chen et al. (arXiv 2107.03374, equation 1): with c of n completions correct,
1 - C(n - c, k) / C(n, k). With n = k (the default) it is whether any completion is correct.

Limit: at the default temperature of 0.1 the samples are nearly alike; set a higher one for a useful pass@k.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from pydantic import Field, model_validator

from nsd.plugins.api import Protocol, Sampling, Scored, Verifier
from nsd.plugins.registry import plugin
from nsd.plugins.sampled import SampledConfig


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k), exact up to one rounding: computed in whole numbers."""
    total = comb(n, k)
    return (total - comb(n - c, k)) / total


@plugin("protocol", "pass_at_k")
class PassAtK(Protocol):
    """Unbiased pass@k."""

    version = 2
    needs_different_samples = True

    class Config(SampledConfig):
        k: int = Field(default=8, ge=1)
        n: int | None = Field(default=None, ge=1, description="Completions of each question, at least k; default k.")

        @model_validator(mode="after")
        def _enough(self) -> PassAtK.Config:
            if self.n is not None and self.n < self.k:
                raise ValueError(f"pass@{self.k} needs at least {self.k} completions, n is {self.n}")
            return self

    config: Config

    def metric(self) -> str:
        return f"pass@{self.config.k}"

    def sampling(self) -> Sampling:
        """n completions."""
        return self.config.sampling(self.config.n or self.config.k)

    def value(self, scored: Sequence[Scored], verifier: Verifier) -> float:
        """The estimate; a completion that is not there counts as wrong."""
        n = self.config.n or self.config.k
        return pass_at_k(n, sum(item.score.correct for item in scored[:n]), self.config.k)

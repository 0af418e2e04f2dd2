"""`maj_at_k`: whether the answer that most of k completions give is correct (maj@k, self-consistency).

    eval: {use: maj_at_k, k: 16, temperature: 0.7}

Votes are counted over the verifier's classes of normalised answers, as in the `consensus` labeler; ties go to the
answer seen first (arXiv 2203.11171 for the idea). A failed completion has no vote; a question that no completion
answers counts as wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pydantic import Field

from nsd.plugins.api import Protocol, Sampling, Scored, Verifier
from nsd.plugins.protocols.sampled import SampledConfig
from nsd.plugins.registry import plugin
from nsd.plugins.verifiers.voting import majority


@plugin("protocol", "maj_at_k")
class MajAtK(Protocol):
    """Correctness of the majority answer."""

    version = 2
    needs_votes = True

    class Config(SampledConfig):
        k: int = Field(default=8, ge=1, description="Completions that vote.")

    config: Config

    def metric(self) -> str:
        return f"maj@{self.config.k}"

    def sampling(self) -> Sampling:
        """k completions."""
        return self.config.sampling(self.config.k)

    def value(self, scored: Sequence[Scored], verifier: Verifier) -> float:
        """1 where the winning answer (the first completion that gave just that one) is correct, else 0."""
        scored = scored[: self.config.k]
        vote = majority([item.score.answer for item in scored], verifier)
        winning = (item for item in scored if item.score.answer is not None and item.score.answer == vote.winner)
        return float(any(item.score.correct for item in itertools.islice(winning, 1)))

"""`maj_at_k`: whether the answer that most of k completions give is correct (maj@k, self-consistency).

    eval: {use: maj_at_k, k: 16, temperature: 0.7}

    eval: {use: maj_at_k, generated_tokens: 200000, temperature: 0.7}

With `generated_tokens` K is found while sampling: as many complete rounds over all questions as that many tokens hold,
`k` at most. So a model is measured at the sampling cost of a training. The metric's name then tells the tokens; how
many completions voted is on record with the evaluation.

Votes are counted over the verifier's classes of normalised answers, as in the `consensus` labeler; ties go to the
answer seen first (arXiv 2203.11171 for the idea). A failed completion has no vote; a question that no completion
answers counts as wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from nsd.plugins.api import Protocol, Sampling, Scored, Verifier
from nsd.plugins.registry import plugin
from nsd.plugins.sampled import SampledConfig
from nsd.plugins.verifiers.voting import majority

MOST = 1024  # completions of a question, where the limit is one of tokens


@plugin("protocol", "maj_at_k")
class MajAtK(Protocol):
    """Correctness of the majority answer."""

    version = 2
    needs_votes = True
    needs_different_samples = True

    class Config(SampledConfig):
        k: int = Field(default=8, ge=1, description="Completions that vote; with generated_tokens, at most (1024).")
        generated_tokens: int | None = Field(
            default=None,
            ge=1,
            description="Tokens of all completions together, instead of a number of them.",
        )

        @model_validator(mode="before")
        @classmethod
        def _many(cls, given: Any) -> Any:
            if isinstance(given, dict) and given.get("generated_tokens") is not None:
                return {"k": MOST, **given}
            return given

    config: Config

    def metric(self) -> str:
        tokens = self.config.generated_tokens
        return f"maj@{self.config.k}" if tokens is None else f"maj@tokens:{tokens}"

    def generated_tokens(self) -> int | None:
        """The limit, where there is one."""
        return self.config.generated_tokens

    def sampling(self) -> Sampling:
        """k completions, with a limit in tokens at most so many."""
        return self.config.sampling(self.config.k)

    def value(self, scored: Sequence[Scored], verifier: Verifier) -> float:
        """1 where the winning answer (the first completion that gave just that one) is correct, else 0."""
        scored = scored[: self.config.k]
        vote = majority([item.score.answer for item in scored], verifier)
        winning = (item for item in scored if item.score.answer is not None and item.score.answer == vote.winner)
        return float(any(item.score.correct for item in itertools.islice(winning, 1)))

"""The sampling fields that protocols and labelers share, with the defaults of the noisy-student study's evaluation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nsd.plugins.api import PluginConfig, Sampling


class SampledConfig(PluginConfig):
    """How a question's completions are drawn."""

    temperature: float = Field(default=0.1, ge=0, description="0 is greedy.")
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0 leaves every token in.")
    max_tokens: int = Field(default=256, ge=1, description="New tokens of one completion at most.")
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[],
        description="Texts before which a completion ends, wherever they come; they are no part of it.",
    )

    def sampling(self, n: int) -> Sampling:
        """`n` completions of each question."""
        return Sampling(
            n=n,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=tuple(self.stop),
        )

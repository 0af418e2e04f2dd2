"""`wordmath`: grade-school word problems of one to four steps, generated from a seed.

    data: {use: wordmath, split: {labeled: 800, unlabeled: 3000, test: 1200}}

Fourteen families of stories (a quantity that changes, comparing people, shopping, averages, ...), each told
in several wordings with sentences that do not matter mixed in. The gold solution has one line per step,
`Left: 19 - 4 = 15`, and ends as GSM8K does, `#### 15`. All numbers are whole, from 0 to 999.

The test pool is drawn first and never changes with the size of the train pool; a larger train pool begins
with the smaller one. No question occurs twice (by `question_id`). Pure Python: 8,000 questions take about
0.15 s, so the pools are generated again wherever they are needed.

Limits: the language is generated, so two questions may differ in names and numbers only; an accuracy here says
nothing about real benchmarks. It exists so that every part of nsd can run for real, anywhere, in minutes.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from nsd.plugins.api import Dataset, DatasetConfig, Pools, PoolSizes, Prompt
from nsd.plugins.registry import plugin
from nsd.plugins.seeds import stream


@plugin("dataset", "wordmath")
class Wordmath(Dataset):
    """Synthetic word problems; see the module's docstring."""

    default_prompt: ClassVar[Prompt] = Prompt(template="{question}\n", separator="")
    default_verifier: ClassVar[str] = "numeric"

    class Config(DatasetConfig):
        seed: int = Field(default=1, ge=0, lt=2**32, description="Seed of the generator; another one, other questions.")
        train: int = Field(default=6000, ge=0, le=1_000_000, description="Questions in the train pool.")
        test: int = Field(default=2000, ge=0, le=100_000, description="Questions in the test pool.")
        steps: tuple[float, float, float, float] = Field(
            default=(0.25, 0.35, 0.25, 0.15),
            description="Weights of problems with one, two, three and four steps.",
        )

        @field_validator("steps")
        @classmethod
        def _some_weight(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
            if min(steps) < 0 or sum(steps) <= 0:
                raise ValueError("the four weights must not be negative, and at least one must be above zero")
            return steps

    config: Config

    def sizes(self) -> PoolSizes:
        return PoolSizes(self.config.train, self.config.test)

    def pools(self) -> Pools:
        """Generate both pools; see `generate`."""
        from nsd.plugins.datasets.wordmath_problems import even_mix, generate

        mixes = even_mix(self.config.steps)
        test = generate(stream(self.config.seed, "wordmath", "test"), self.config.test, mixes)
        taken = {question.id for question in test}
        train = generate(stream(self.config.seed, "wordmath", "train"), self.config.train, mixes, taken)
        return Pools(train=train, test=test)

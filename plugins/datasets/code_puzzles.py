"""`code_puzzles`: small programming tasks with tests, generated from a seed.

    data: {use: code_puzzles, split: {labeled: 800, test: 300}}

    Write a function f(x) for a list of numbers x. First keep the even numbers. Then find the total.

A task takes one to three steps (`levels`) out of some forty operations on lists of numbers, numbers and words. The gold
program has a line for each step. Each operation has a plain wording and another; `plain` says how often the plain one
is taken. Six tests (plugins/verifiers/code.py) call the function, three of them public; `examples` puts the first
public ones into the text. No step is in vain: without it at least two tests would fail.

The test pool is drawn first and never changes with the size of the train pool; a larger train pool begins with the
smaller one. No task occurs twice (by `question_id`). The model builtin:codepuzzles-1m knows the plain wordings alone.

Limits: the language is generated and the operations are few, so the program of a test task may be that of a train task
in other words. It exists so that learning from the results of tests can be tried anywhere, in minutes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from pydantic import Field, field_validator

from nsd.plugins.api import Dataset, DatasetConfig, Pools, PoolSizes, Prompt, Question, Shown
from nsd.plugins.registry import plugin
from nsd.plugins.seeds import stream


@plugin("dataset", "code_puzzles")
class CodePuzzles(Dataset):
    """Generated programming tasks; see the module's docstring."""

    default_prompt: ClassVar[Prompt] = Prompt(template="{question}\n", separator="")
    default_verifier: ClassVar[str] = "code"

    class Config(DatasetConfig):
        seed: int = Field(default=1, ge=0, lt=2**32, description="Seed of the generator; another one, other tasks.")
        train: int = Field(default=1500, ge=0, le=100_000, description="Tasks in the train pool.")
        test: int = Field(default=500, ge=0, le=100_000, description="Tasks in the test pool.")
        levels: tuple[float, float, float] = Field(
            default=(0.1, 0.5, 0.4), description="Weights of tasks with one, two and three steps."
        )
        plain: float = Field(default=0.7, ge=0, le=1, description="How often a step is told in its plain wording.")
        examples: int = Field(default=0, ge=0, le=3, description="Public tests that the text shows.")

        @field_validator("levels")
        @classmethod
        def _room(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
            if min(levels) < 0 or sum(levels[1:]) <= 0:
                raise ValueError(
                    "the weights must not be negative, and two or three steps need one: there are few tasks of one step"
                )
            return levels

    config: Config

    def sizes(self) -> PoolSizes:
        return PoolSizes(self.config.train, self.config.test)

    def pools(self) -> Pools:
        """Generate both pools; see `generate`."""
        from nsd.plugins.datasets.code_puzzles_tasks import generate

        config = self.config
        levels = dict(enumerate(config.levels, start=1))

        def drawn(pool: str, count: int, exclude: Collection[str] = ()) -> list[Question]:
            seed = stream(config.seed, "code_puzzles", pool)
            return generate(seed, count, levels, config.plain, config.examples, exclude)

        test = drawn("test", config.test)
        train = drawn("train", config.train, {question.id for question in test})
        return Pools(train=train, test=test)

    def shown(self) -> Shown:
        """The tests, without which nobody could judge a program."""
        return Shown(meta=frozenset(("tests", "function")))

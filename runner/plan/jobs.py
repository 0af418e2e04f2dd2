"""What the worker of a stage is given: one frozen shape for each kind of stage.

The plan makes them; no digest is made of them. So they name paths, processes and trackers, and hold a plugin's config
whole. As JSON they lie in a stage's `job.json` (runner/work/jobs.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nsd.plugins.api import LoraConfig, Prompt, Sampling, Search, Shown, TrainSeeds
from nsd.plugins.code import Code

NOTHING = Shown()


@dataclass(frozen=True)
class PlannedCode:
    """A plugin of a third party, and what its code was when the plan was made (plugins/code.py)."""

    kind: str
    use: str
    code: Code


@dataclass(frozen=True)
class PluginJob:
    """A plugin to be made: its kind, its name or the absolute path of its file, its whole config.

    `code` lists what third parties' code was planned with, so that a worker does not run another.
    """

    kind: str
    use: str
    config: dict[str, Any]
    code: tuple[PlannedCode, ...] = ()


@dataclass(frozen=True)
class ModelJob:
    """A model: the spec's own, or what the train stage with the digest `train` made of it."""

    path: str
    revision: str | None
    dtype: str
    train: str | None


@dataclass(frozen=True)
class SourceJob:
    """Examples from one source: the content hash of its questions, and for "pseudo" the label stage's digest.

    `shown` says what a pseudo-labeled example keeps of its question.
    """

    source: str
    data: str
    labels: str | None = None
    shown: Shown = NOTHING


@dataclass(frozen=True)
class TokensOf:
    """A budget of as many tokens as another arm's trainer learns from these questions."""

    data: tuple[str, ...]
    trainer: PluginJob


@dataclass(frozen=True)
class BudgetJob:
    """Matched compute; all None where nothing is matched."""

    steps: int | None = None
    tokens_of: TokensOf | None = None
    tokens: int | None = None
    generated_tokens: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        for name, unit in (("tokens", "tokens"), ("generated_tokens", "generated tokens"), ("seconds", "s")):
            if (amount := getattr(self, name)) is not None:
                return f"{amount:,} {unit}"
        return f"{self.steps} steps" if self.steps else ""


@dataclass(frozen=True)
class ValidationJob:
    """What a training is watched by: the content hash of its questions, and how it is measured on them."""

    questions: str
    every: int
    keep: Literal["best", "last"]
    protocol: PluginJob
    verifier: PluginJob
    seed: int


@dataclass(frozen=True)
class ToTrain:
    """A training."""

    trainer: PluginJob
    verifier: PluginJob
    model: ModelJob
    lora: LoraConfig | None
    train_dtype: str | None
    prompt: Prompt
    train_on: tuple[SourceJob, ...]
    seeds: TrainSeeds
    seed: int
    budget: BudgetJob
    processes: int  # on each machine
    track: tuple[str, ...]
    max_steps_cap: int | None  # --smoke only
    validation: ValidationJob | None = None

    @property
    def plugin(self) -> PluginJob:
        """The one that the stage is named for."""
        return self.trainer

    @property
    def data(self) -> tuple[str, ...]:
        """Content hashes of the questions that it reads."""
        watched = () if self.validation is None else (self.validation.questions,)
        return (*(source.data for source in self.train_on), *watched)


@dataclass(frozen=True)
class _OverQuestions:
    """Work over questions, by their content hash, with one seed."""

    questions: str
    seed: int

    @property
    def data(self) -> tuple[str, ...]:
        """Content hashes of the questions that it reads."""
        return (self.questions,)


@dataclass(frozen=True)
class Asking:
    """Who is asked between rounds how many more samples of a question are wanted, and how its answers are read."""

    labeler: PluginJob
    verifier: PluginJob


@dataclass(frozen=True)
class ToSample(_OverQuestions):
    """Completions of a model; `model` None for an engine that loads none.

    What is said of the engine here needs nobody to import it who only starts processes.
    """

    engine: PluginJob
    model: ModelJob | None
    prompt: Prompt
    sampling: Sampling
    uses_every_gpu: bool  # the engine spreads over them by itself
    generated_tokens: int | None = None  # as many rounds over the questions as these hold, `sampling.n` at most
    asking: Asking | None = None  # None: `sampling.n` of every question
    least_rows: int = 1  # of a round between which is asked
    served: bool = False  # the engine asks a model that somebody else serves

    @property
    def plugin(self) -> PluginJob:
        """The one that the stage is named for."""
        return self.engine


@dataclass(frozen=True)
class ToLabel(_OverQuestions):
    """Pseudo-labels."""

    labeler: PluginJob
    verifier: PluginJob

    @property
    def plugin(self) -> PluginJob:
        """The one that the stage is named for."""
        return self.labeler


@dataclass(frozen=True)
class ToScore(_OverQuestions):
    """Verdicts on stored completions; `sampling` and `seed` are those they were drawn with."""

    protocol: PluginJob
    verifier: PluginJob
    sampling: Sampling

    @property
    def plugin(self) -> PluginJob:
        """The one that the stage is named for."""
        return self.protocol


@dataclass(frozen=True)
class ToDiscover(_OverQuestions):
    """A search for a solution of one question, whose content hash `questions` is.

    `verifier` says what solves it, `train_verifier` (None: the same) what an attempt is told. `trainer`, `seeds` and
    what a training needs of a model are there where the search is a training; `engine` where it is none.
    """

    search: Search
    engine: PluginJob | None
    trainer: PluginJob | None
    model: ModelJob | None
    lora: LoraConfig | None
    train_dtype: str | None
    prompt: Prompt
    verifier: PluginJob
    train_verifier: PluginJob | None
    sampling: Sampling
    seeds: TrainSeeds | None

    @property
    def plugin(self) -> PluginJob:
        """The one that the stage is named for."""
        found = self.trainer if self.engine is None else self.engine
        assert found is not None
        return found


@dataclass(frozen=True)
class ToGather(_OverQuestions):
    """The values of questions that were searched alone; `found` are the stages' digests, in the questions' order."""

    protocol: PluginJob
    verifier: PluginJob
    sampling: Sampling
    found: tuple[str, ...]

    @property
    def plugin(self) -> PluginJob:
        """The one that the stage is named for."""
        return self.protocol


StageJob = ToTrain | ToSample | ToLabel | ToScore | ToDiscover | ToGather

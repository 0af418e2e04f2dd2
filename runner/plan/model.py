"""A plan: stages in an order in which every input comes first, and the runs that they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nsd.plugins.api import Question
from nsd.runner.plan.jobs import PluginJob, StageJob, ToTrain
from nsd.runner.spec.model import Condition, Experiment
from nsd.runner.store.workspace import Workspace


@dataclass(frozen=True)
class Truth:
    """Questions that a training has without their answers, with them: what the executor alone may look at.

    No job holds it. `known_by` is a digest of answers and verifier.
    """

    questions: Sequence[Question]
    verifier: PluginJob
    known_by: str


@dataclass
class Stage:
    """One unit of work. `key` decides the digest; `job` is what the worker needs besides.

    `settings` is the key with every default written out; a score stage's also says how its samples were drawn.
    """

    kind: str
    digest: str
    key: dict[str, Any]
    inputs: dict[str, str]  # role -> digest of the stage it comes from
    job: StageJob | None  # None where a finished stage is known by its manifest alone
    size: str
    used_by: list[str] = field(default_factory=list)  # "condition/seedN"
    repeat: int | None = None  # which repetition of an evaluation it is
    settings: dict[str, Any] = field(default_factory=dict)
    truth: Truth | None = None  # of a training

    @property
    def processes(self) -> int:
        """How many processes share it on each machine."""
        return self.job.processes if isinstance(self.job, ToTrain) else 1

    @property
    def title(self) -> str:
        """How a person refers to the stage while it runs."""
        more = f" (+{len(self.used_by) - 1})" if len(self.used_by) > 1 else ""
        return f"{self.kind} {self.used_by[0]}{more}{f', repeat {self.repeat}' if self.repeat else ''}"


@dataclass
class PlannedRun:
    """One row of the results: a condition under a seed, and the stages that make it.

    `repeats` are digests of further evaluations of the same weights, which differ in the sampling seed alone.
    `measurement` names the evaluation where the spec names its evaluations; `beside` says that it is not the first, and
    `condition` is then `condition@measurement`.
    """

    run: str
    condition: str
    seed: int
    eval_digest: str
    train_digest: str | None
    label_digest: str | None
    repeats: list[str] = field(default_factory=list)
    measurement: str | None = None
    beside: bool = False


@dataclass
class Plan:
    """Stages in an order in which every input comes first."""

    experiment: Experiment
    name: str
    spec_digest: str
    stages: dict[str, Stage]
    runs: list[PlannedRun]
    data: dict[str, Sequence[Question]]  # content hash -> questions
    notes: list[str]
    known: bool = True  # False where the data could not be read here; see launch/unplanned.py

    def pending(self, workspace: Workspace) -> list[Stage]:
        """Stages to run, in order: unfinished ones, and finished trainings whose weights `nsd gc` took
        and an unfinished stage needs.
        """
        found: list[Stage] = []
        wanted: set[str] = set()
        for stage in reversed(self.stages.values()):
            whole = workspace.is_whole(stage.kind, stage.digest)
            lost = (
                whole and stage.digest in wanted and stage.kind == "train" and not workspace.has_weights(stage.digest)
            )
            if not whole or lost:
                found.append(stage)
                wanted |= set(stage.inputs.values())
        return found[::-1]

    def with_causes(self, digests: Iterable[str]) -> set[str]:
        """These stages and everything they depend on, however far back."""
        found: set[str] = set()
        waiting = list(digests)
        while waiting:
            digest = waiting.pop()
            if digest not in found:
                found.add(digest)
                waiting.extend(self.stages[digest].inputs.values())
        return found

    def measured(self, run: PlannedRun) -> Condition:
        """The condition of a run, as its evaluation measures it."""
        condition = self.experiment.conditions[run.condition.partition("@")[0]]
        return dict(condition.measured())[run.measurement]

    def needs(self, digest: str) -> list[str]:
        """Digests of every training a stage depends on, however far back."""
        found: list[str] = []
        for wanted in self.stages[digest].inputs.values():
            found += [*self.needs(wanted), *([wanted] if self.stages[wanted].kind == "train" else [])]
        return list(dict.fromkeys(found))

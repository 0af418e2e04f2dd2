"""The spec language: `load_spec` turns a YAML file into a checked, complete `Experiment`.

    experiment = load_spec(Path("specs/quickstart.yaml"))
    experiment.conditions["noisy_student"].trainer.config.learning_rate

A spec names an experiment, its blocks (`data`, `prompt`, `verifier`, `train_verifier`, `engine`, `labeler`, `trainer`,
`eval`: each a plugin with its own typed config, and `model`; `evals` names several measurements in the place of `eval`,
see runner/spec/evaluations.py) and its `conditions`, which say what is trained on what
and may override any field of any block. Merging, short forms and `extends` are described in
runner/spec/merge.py, `sweep` in runner/spec/sweep.py, YAML itself in runner/spec/yaml.py. The work is done in
runner/spec/load.py and runner/spec/blocks.py, and runner/spec/schema.py makes the JSON schema.

Defaults: the verifier and the prompt come from the dataset (a partial `prompt:` changes single
fields), the engine is `hf`, the evaluation `accuracy`, the seed 42. `model.chat`, where given, decides over
`prompt.chat`. A condition that trains on nothing has no trainer, one without pseudo-labels no labeler. `train_verifier`
judges completions while training, where a reward may see less than an evaluation; labels and evaluations keep
`verifier`, and so does a training without one.

`pseudo` are the unlabeled questions with labels from `label_with`'s model; `unlabeled` are the same questions
with their hidden true labels, `questions` the same without any answer, so a condition has one of the three. With
`label_on: labeled`, `pseudo` are the labeled questions, with such labels in the place of their answers.
`test_questions` are the test questions without answers; reports name every arm that was trained on them.

`validation: {questions: 50, every: 20}` keeps that many labeled questions, the same ones, from the training of every
condition; trainers measure on them as they go, by `protocol` (default: the condition's `eval`), and leave the best
weights, or with `keep: last` the last ones.

`controls: [maj_at_k]` adds the condition `base_maj_at_k`: see runner/spec/controls.py.

`match` gives every trained condition the same budget: that of one of them, or `amount` steps, tokens, generated tokens
or seconds.

Claims: `a > b`, or `{compare: [a, b], not_worse_by: 0.02}`, `{compare: [a, b], equivalent_within: 0.02}`,
`{compare: [a, b], better: true}`, each of the last three with `on: NAME`, where it is not about the first of `evals`.

All errors of a spec are raised at once as SpecErrors, also those in files it extends. Only the plugins that
the spec names are imported. A block may name `./file.py:Name` (relative to the file that says so), which RUNS
that file, and happens only with `run_files=True`. Else the block's fields stay unchecked (`Block.config` is an
UncheckedConfig), and what the file's dataset decides (prompt, verifier) is not known. The same holds for blocks
inside blocks (`data.unlabeled_from`, `trainer.rewards`).

Every relative path (`extends`, a plugin's file, a model's folder, the files of a dataset or engine) counts from the
folder of the file in which it is written. A config then holds the absolute path; `resolved` and digests hold what
was written.

Limits: whether a split fits the dataset, and whether a model or data file exists, is found out when planning. A
third party's field is known as a path where its type is `pathlib.Path` or it is marked with `SpecPath`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeGuard, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nsd.plugins.api import (
    Dataset,
    Engine,
    Labeler,
    LoraConfig,
    Plugin,
    PluginConfig,
    Prompt,
    Protocol,
    Trainer,
    Verifier,
)
from nsd.plugins.errors import InputError, NsdError
from nsd.plugins.files import is_path
from nsd.runner.spec.digest import digest_config
from nsd.runner.spec.merge import BLOCKS, CONDITION_KEYS, OVERRIDABLE

__all__ = [
    "Block",
    "Claim",
    "Condition",
    "Experiment",
    "Hypotheses",
    "Match",
    "ModelSpec",
    "Resources",
    "UncheckedConfig",
    "digest_config",
]

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[int, Field(gt=0)]


class _Frozen(BaseModel):
    # Building a validator takes about a millisecond a class: only those that a spec needs are built.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ModelSpec(_Frozen):
    """The weights a condition starts from: a hub id, a local folder, or `builtin:wordmath-1m`."""

    path: str = Field(description="A hub id, a local folder (./..., /...) or builtin:wordmath-1m.", min_length=1)
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub model.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Number type of the weights; auto takes bfloat16 on a GPU that has it."
    )
    train_dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="Number type of the weights while they are trained, and of those that are saved; null: dtype. In "
        "float32 small updates are not rounded away, at twice the memory of bfloat16; sampling keeps dtype.",
    )
    lora: LoraConfig | None = Field(default=None, description="Train low-rank adapters instead of every weight.")
    chat: bool | None = Field(default=None, description="Decides over prompt.chat where it is given.")


Made = TypeVar("Made", bound=Plugin)
Kind = TypeVar("Kind", bound=Plugin, covariant=True)


@dataclass(frozen=True)
class Block(Generic[Kind]):
    """A resolved plugin block: the class and its typed config, every default filled in and every path absolute.

    `use` is as written, `place` the same with a plugin file's absolute path. `texts` are the paths in the config as
    they were written, by where they stand; `nested` the blocks inside the config, likewise; `written` the fields as
    they were written.
    """

    kind: str
    use: str
    place: str
    cls: type[Kind]
    config: PluginConfig
    written: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[Steps, str] = field(default_factory=dict)
    nested: Mapping[Steps, Block[Plugin]] = field(default_factory=dict)

    @property
    def not_run(self) -> str | None:
        """A plugin in a file that was not run: this one, or one inside it."""
        if isinstance(self.config, UncheckedConfig):
            return f"{self.kind} {self.use!r}"
        return next((found for block in self.nested.values() if (found := block.not_run)), None)

    def make(self) -> Kind:
        """An instance. Raises InputError where the plugin's file was not run, or the class cannot be made."""
        if (not_run := self.not_run) is not None:
            raise InputError(f"{not_run} is in a file, and a spec's files are run only where --run-files says so")
        try:
            return self.cls(self.config)
        except NsdError:
            raise
        except Exception as error:
            if self.cls.__module__.startswith("nsd.plugins."):
                raise
            told = f"{type(error).__name__}: {error}"
            raise InputError(f"the {self.kind} {self.use!r} cannot be made of its config: {told}") from error

    def to_json(self) -> dict[str, Any]:
        """`use` and every field of the config, JSON-able; of a plugin in a file the fields that were written.

        The same whether or not the file was run.
        """
        if is_path(self.use):
            return {"use": self.use, **self.written}
        return {"use": self.use, **self.as_written(self.config.model_dump(mode="json"))}

    def to_digest(self) -> dict[str, Any]:
        """The same without the fields that have their default."""
        if is_path(self.use):
            return self.to_json()
        return {"use": self.use, **self.as_written(digest_config(self.config, neutral=True))}

    def as_written(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """The dumped config with every path, and every block that names a file, as it was written."""
        for steps, text in self.texts.items():
            put(dumped, steps, text)
        for steps, block in self.nested.items():
            if is_path(block.use):
                put(dumped, steps, block.to_json())
            else:
                inner = at(dumped, steps)
                if isinstance(inner, dict):
                    block.as_written(inner)
        return dumped


def holds(block: Block[Plugin], base: type[Made]) -> TypeGuard[Block[Made]]:
    """Whether the block's plugin is of this base class."""
    return issubclass(block.cls, base)


Steps = tuple[str | int, ...]  # where something stands in a config: ("rewards", 0, "use")


def put(data: Any, steps: Steps, value: Any) -> None:
    """Replace what stands at a place in nested mappings and lists, where there is such a place."""
    *way, last = steps
    if at(data, steps) is not None:
        at(data, tuple(way))[last] = value


def at(data: Any, steps: Steps) -> Any:
    """What stands at a place in nested mappings and lists, None where there is no such place."""
    try:
        for step in steps:
            data = data[step]
    except (KeyError, IndexError, TypeError):
        return None
    return data


class UncheckedConfig(PluginConfig):
    """Holds the fields of a `./file.py:Name` block whose file was not run, as written."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


@dataclass(frozen=True)
class Evaluation:
    """One of a condition's named measurements, with all that was written of it merged; `from_file` as in Condition."""

    name: str
    data: Block[Dataset]
    prompt: Prompt
    verifier: Block[Verifier]
    protocol: Block[Protocol]
    from_file: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> str:
        """The same text for two evaluations exactly where they measure the same; the name is no part of it."""
        said = {
            **{key: getattr(self, key).to_json() for key in ("data", "verifier", "protocol")},
            "prompt": self.prompt.model_dump(mode="json"),
            **self.from_file,
        }
        return json.dumps(said, sort_keys=True, default=str)


@dataclass(frozen=True)
class Condition:
    """One arm: what it trains on, who labels, and its blocks with all overrides merged.

    `weights` is `model.path` with a local folder's absolute path. `from_file` says what stands in the resolved spec for
    the blocks that a dataset in a file decides. `evals` are the spec's evaluations that it has, where the spec names
    them; `eval` is then the protocol of the first.
    """

    name: str
    train_on: tuple[str, ...]
    label_with: str | None
    rounds: int
    init: str
    model: ModelSpec
    data: Block[Dataset]
    prompt: Prompt
    verifier: Block[Verifier]
    engine: Block[Engine]
    labeler: Block[Labeler] | None
    trainer: Block[Trainer] | None
    eval: Block[Protocol]
    weights: str
    from_file: Mapping[str, Any] = field(default_factory=dict)
    train_verifier: Block[Verifier] | None = None
    label_on: str = "unlabeled"
    evals: tuple[Evaluation, ...] = ()

    def measured(self) -> list[tuple[str | None, Condition]]:
        """The condition as each of its evaluations measures it, the first first, by the evaluation's name.

        The name is None where the spec has a single `eval`. All but the first are called `condition@evaluation`.
        """
        if not self.evals:
            return [(None, self)]
        return [(one.name, self._as_measured(one, beside=number > 0)) for number, one in enumerate(self.evals)]

    def _as_measured(self, by: Evaluation, beside: bool) -> Condition:
        name = beside_name(self.name, by.name) if beside else self.name
        return replace(
            self, name=name, evals=(), data=by.data, prompt=by.prompt, verifier=by.verifier, eval=by.protocol
        )

    @property
    def training_verifier(self) -> Block[Verifier]:
        """The verifier of all that a training sees: its rewards, and the votes on its pseudo-labels."""
        return self.verifier if self.train_verifier is None else self.train_verifier

    def to_json(self) -> dict[str, Any]:
        """Every field but the name, JSON-able."""
        return self._said(lambda block: block.to_json(), lambda model: model.model_dump(mode="json"))

    def to_digest(self) -> dict[str, Any]:
        """The same without the fields that have their default."""
        return self._said(lambda block: block.to_digest(), lambda model: digest_config(model, neutral=True))

    def _said(
        self, of_block: Callable[[Block[Plugin]], dict[str, Any]], of_model: Callable[[BaseModel], dict[str, Any]]
    ) -> dict[str, Any]:
        blocks = {key: of_block(block) if (block := getattr(self, key)) else None for key in BLOCKS}
        if self.train_verifier is None:  # records and digests of specs without one stay as they are
            del blocks["train_verifier"]
        return {
            "train_on": list(self.train_on),
            "label_with": self.label_with,
            **({} if self.label_on == "unlabeled" else {"label_on": self.label_on}),  # for the same reason
            "rounds": self.rounds,
            "init": self.init,
            "model": of_model(self.model),
            "prompt": of_model(self.prompt),
            **blocks,
            **self.from_file,
            **({"evals": [self._said_of(one, of_block, of_model) for one in self.evals]} if self.evals else {}),
        }

    def _said_of(
        self,
        one: Evaluation,
        of_block: Callable[[Block[Plugin]], dict[str, Any]],
        of_model: Callable[[BaseModel], dict[str, Any]],
    ) -> dict[str, Any]:
        """An evaluation's name, protocol, and what of it is not the condition's own; their order tells the first."""
        said = {"data": of_block(one.data), "verifier": of_block(one.verifier), "prompt": of_model(one.prompt)}
        mine = {"data": of_block(self.data), "verifier": of_block(self.verifier), "prompt": of_model(self.prompt)}
        said, mine = {**said, **one.from_file}, {**mine, **self.from_file}
        differs = {key: value for key, value in said.items() if value != mine[key]}
        return {"name": one.name, "protocol": of_block(one.protocol), **differs}


def beside_name(condition: str, evaluation: str) -> str:
    """What a condition is called as an evaluation that is not the spec's first measures it."""
    return f"{condition}@{evaluation}"


@dataclass(frozen=True)
class Claim:
    """A hypothesis about two conditions; `margin` belongs to not_worse_by and equivalent_within.

    `on` is the evaluation that decides it, None for the first; `better` and `worse` are the conditions as it measures
    them (`a`, or `a@retention`). An `interaction` says that their difference is not the same in all groups of questions
    that the field `by` makes.
    """

    text: str
    kind: Literal["better", "not_worse_by", "equivalent_within", "interaction"]
    better: str
    worse: str
    margin: float | None = None
    on: str | None = None
    by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Every field, JSON-able; records of specs with one evaluation and no interaction stay as they are."""
        return {name: value for name, value in vars(self).items() if name not in ("on", "by") or value is not None}


@dataclass(frozen=True)
class Hypotheses:
    """What is claimed before the run, as one family of tests."""

    alpha: float = 0.05
    correction: Literal["holm", "bonferroni", "none"] = "holm"
    claims: tuple[Claim, ...] = ()
    looks: int | Literal["any"] | None = None
    detect: float | None = None

    def to_json(self) -> dict[str, Any]:
        stated = {name: value for name in ("looks", "detect") if (value := getattr(self, name)) is not None}
        claims = [claim.to_json() for claim in self.claims]
        return {"alpha": self.alpha, "correction": self.correction, **stated, "claims": claims}


class HypothesesConfig(_Frozen):
    """`hypotheses:` as written."""

    alpha: float = Field(default=0.05, gt=0, lt=1, description="Family-wise error rate of the claims together.")
    correction: Literal["holm", "bonferroni", "none"] = Field(default="holm")
    looks: Annotated[int, Field(ge=1, le=100)] | Literal["any"] | None = Field(
        default=None,
        description=(
            "Planned looks at growing data (seeds or questions added later), each tested at alpha / looks; or any: "
            "verdicts that hold at every look, with wider intervals."
        ),
    )
    detect: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The difference wanted, as a share: plan, power, compare and report say what it takes.",
    )
    claims: list[Any] = Field(default=[], description="`a > b`, or {compare: [a, b], not_worse_by: 0.02} and the like.")


class ClaimConfig(_Frozen):
    """A claim written as a mapping."""

    compare: list[str] = Field(min_length=2, max_length=2, description="the two conditions, [a, b]")
    better: Literal[True] | None = Field(default=None, description="a is better than b.")
    not_worse_by: float | None = Field(default=None, gt=0, lt=1, description="a is worse than b by less than this.")
    equivalent_within: float | None = Field(default=None, gt=0, lt=1, description="a and b differ by less than this.")
    by: str | None = Field(
        default=None,
        min_length=1,
        description="a - b is not the same in every group of questions by this field of theirs, or by length.",
    )
    on: str | None = Field(default=None, description="The evaluation of evals that decides it; the first by default.")


class Resources(_Frozen):
    """Where and with what a run happens; nothing here changes what comes out."""

    accelerators: str | list[str] | None = Field(
        default=None, description="GPU type and count, such as L4:1, or a list of acceptable ones."
    )
    cpus: int | str | None = Field(default=None, description="Number of CPU cores, 8+ means at least 8.")
    memory: int | str | None = Field(default=None, description="Main memory in GB, 32+ means at least 32.")
    use_spot: bool = Field(default=False, description="Take cheaper machines that may be taken away.")
    max_hours: float | None = Field(default=None, gt=0, description="Stop after this many hours.")
    max_usd: float | None = Field(default=None, gt=0, description="Stop before this many dollars are spent.")
    regions: list[str] = Field(default=[], description="Regions to choose from; none means all.")
    infra: str | None = Field(default=None, description="Where to launch: a cloud, kubernetes, slurm/NAME, ssh/NAME.")
    disk_size: int | None = Field(default=None, gt=0, description="Disk in GB.")
    image_id: str | None = Field(default=None, description="Machine image or docker:IMAGE.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto: the NVIDIA GPUs that are there, else the processor."
    )
    processes: int | None = Field(
        default=None, ge=1, description="Training processes on one machine; null: one for each GPU."
    )
    sampling_processes: int | None = Field(
        default=None,
        ge=1,
        description="Processes that draw completions, each on its own GPU; null: one for each GPU in use.",
    )
    nodes: int = Field(default=1, ge=1, description="Machines of a launch; trainings are spread over all of them.")
    over: Literal["ray"] | None = Field(
        default=None,
        description="ray: sampling and scoring are spread over all GPUs and machines by Ray Data, with nsd[ray].",
    )


class Match(_Frozen):
    """Compute matching: in what unit every trained condition gets the same budget as `to`."""

    by: Literal["steps", "epochs", "tokens", "generated_tokens", "seconds"] = Field(
        default="epochs", description="epochs: each condition takes its trainer's own epochs or steps."
    )
    to: str | None = Field(default=None, description="The condition whose budget all others get.")
    amount: Positive | Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="The budget itself; generated_tokens and seconds need it."
    )

    @field_validator("amount")
    @classmethod
    def _whole(cls, amount: float | None) -> float | None:
        # 2e5 is a float to YAML and the same budget as 200000
        return int(amount) if isinstance(amount, float) and amount.is_integer() else amount

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-able; records of specs without an amount stay as they are."""
        return self.model_dump(mode="json", exclude={"amount"} if self.amount is None else None)


class ValidationConfig(_Frozen):
    """`validation:` as written, but for its protocol."""

    questions: int = Field(ge=1, description="Labeled questions that no arm trains on, the same ones in every arm.")
    every: int = Field(ge=1, description="Optimizer steps from one measurement to the next.")
    keep: Literal["best", "last"] = Field(
        default="best", description="Which weights a training leaves: those of its best measurement, or the last ones."
    )


@dataclass(frozen=True)
class Validating:
    """What every training of the spec is watched by. `protocol` None: the condition's own `eval`.

    `place` is where it is written (`file.yaml:3`), for what only the data can show to be wrong.
    """

    questions: int
    every: int
    keep: Literal["best", "last"]
    protocol: Block[Protocol] | None
    place: str

    def to_json(self) -> dict[str, Any]:
        """Every field but the place, JSON-able."""
        return self._said(None if self.protocol is None else self.protocol.to_json())

    def to_digest(self) -> dict[str, Any]:
        """The same without the fields of its protocol that have their default."""
        return self._said(None if self.protocol is None else self.protocol.to_digest())

    def _said(self, protocol: dict[str, Any] | None) -> dict[str, Any]:
        return {"questions": self.questions, "every": self.every, "keep": self.keep, "protocol": protocol}


class TopConfig(_Frozen):
    """The plain fields at the top of a spec."""

    name: str = Field(description="a name of its own, for folders and runs; it is not inherited through extends")
    question: str | None = Field(default=None, description="What the experiment asks, in a sentence.")
    seeds: list[Seed] = Field(default=[42], min_length=1, description="Every condition runs once with each.")
    resources: Resources = Field(default_factory=Resources)
    match: Match = Field(default_factory=Match)
    track: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        default=[], description="Trackers that get the training curves."
    )


class ConditionConfig(_Frozen):
    """The fields of a condition beside its overrides."""

    train_on: list[Literal["labeled", "pseudo", "unlabeled", "questions", "test_questions"]] = Field(
        description="train_on: [] leaves the model untrained, [labeled] is the supervised baseline"
    )
    label_with: str | None = Field(default=None, description="The condition whose model gives the pseudo-labels.")
    label_on: Literal["unlabeled", "labeled"] = Field(
        default="unlabeled", description="Which questions get pseudo-labels; the labeled ones hide their answers then."
    )
    rounds: int = Field(default=1, ge=1, description="How often to label and train, each time with the newest model.")
    init: Literal["base", "teacher"] = Field(
        default="base", description="Start every student from the base model, or from label_with's weights."
    )


@dataclass(frozen=True)
class Experiment:
    """A whole spec, checked, every default filled in. `resolved` is the same as plain JSON-able data."""

    name: str
    question: str | None
    seeds: tuple[int, ...]
    conditions: dict[str, Condition]
    hypotheses: Hypotheses | None
    resources: Resources
    match: Match
    track: tuple[str, ...]
    path: Path
    text: str
    resolved: dict[str, Any]
    validation: Validating | None = None
    evals: tuple[str, ...] = ()  # names of its evaluations in order; none where it has a single `eval`


assert {*ConditionConfig.model_fields, *OVERRIDABLE, "evals"} == set(CONDITION_KEYS)

"""The spec language: `load_spec` turns a YAML file into a checked, complete `Experiment`.

    experiment = load_spec(Path("specs/quickstart.yaml"))
    experiment.conditions["noisy_student"].trainer.config.learning_rate

A spec names an experiment, its blocks (`data`, `prompt`, `verifier`, `engine`, `labeler`, `trainer`, `eval`:
each a plugin with its own typed config, and `model`) and its `conditions`, which say what is trained on what
and may override any field of any block. Merging, short forms, `extends` and `sweep` are described in
runner/spec_resolve.py, YAML itself in runner/spec_yaml.py, the JSON schema is made by runner/schema.py.

What is filled in: the verifier and the prompt come from the dataset (a partial `prompt:` changes single
fields), the engine is `hf`, the evaluation `accuracy`, the seed 42. `model.chat`, where given, decides over
`prompt.chat`. A condition that trains on nothing has no trainer, one without pseudo-labels no labeler.

`pseudo` are the unlabeled questions with labels from `label_with`'s model; `unlabeled` are the same questions
with their hidden true labels, so a condition has one or the other.

Claims: `a > b`, or `{compare: [a, b], not_worse_by: 0.02}`, `{compare: [a, b], equivalent_within: 0.02}`,
`{compare: [a, b], better: true}`.

All errors of a spec are raised at once as SpecErrors, also those in files it extends. Only the plugins that
the spec names are imported. A block may name `./file.py:Name` (relative to the file that says so), which RUNS
that file; with `run_files=False` it is not run, the block's fields stay unchecked (`Block.config` is an
UncheckedConfig) and its dataset is taken to have the default prompt and verifier of plugins.api.Dataset.

Limits: whether a split fits the dataset, and whether a model or data file exists, is found out when planning.
A relative path in `extends` or `./file.py:Name` counts from the spec's folder; every other path (a model's,
a data file's) from the folder nsd is started in.
"""

from __future__ import annotations

import enum
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from plugins import api, registry
from plugins.api import Dataset, LoraConfig, OutputNeutral, Plugin, PluginConfig, Prompt
from plugins.errors import InputError
from runner.spec_errors import Position, Problems, SpecError, SpecErrors, did_you_mean
from runner.spec_resolve import (
    BLOCKS,
    CONDITION_KEYS,
    NAME,
    OVERRIDABLE,
    Swept,
    expand_sweeps,
    merge_condition,
    read_family,
)
from runner.spec_validate import describe, how_to_fix, validate
from runner.spec_yaml import Item

__all__ = [
    "Block",
    "Claim",
    "Condition",
    "Experiment",
    "Hypotheses",
    "Match",
    "ModelSpec",
    "Resources",
    "SpecError",
    "SpecErrors",
    "UncheckedConfig",
    "digest_config",
    "load_spec",
]

BUILT_IN_MODELS = ("wordmath-1m",)
DEFAULT_USE = {"engine": "hf", "eval": "accuracy"}
TRACKERS = ("tensorboard", "wandb", "trackio")
Seed = Annotated[int, Field(ge=0, lt=2**32)]


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
    lora: LoraConfig | None = Field(default=None, description="Train low-rank adapters instead of every weight.")
    chat: bool | None = Field(default=None, description="Decides over prompt.chat where it is given.")


@dataclass(frozen=True)
class Block:
    """A resolved plugin block: the class and its typed config, every default filled in."""

    kind: str
    use: str
    cls: type[Plugin]
    config: PluginConfig

    def make(self) -> Plugin:
        """An instance. Raises InputError where the plugin's file was not run."""
        if isinstance(self.config, UncheckedConfig):
            raise InputError(f"{self.kind} {self.use!r} is in a file that was not run: load the spec with run_files")
        return self.cls(self.config)

    def to_json(self) -> dict[str, Any]:
        """`use` and every field of the config, JSON-able."""
        return {"use": self.use, **self.config.model_dump(mode="json")}


class UncheckedConfig(PluginConfig):
    """Holds the fields of a `./file.py:Name` block whose file was not run, as written."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True)
class Condition:
    """One arm: what it trains on, who labels, and its blocks with all overrides merged."""

    name: str
    train_on: tuple[str, ...]
    label_with: str | None
    rounds: int
    init: str
    model: ModelSpec
    data: Block
    prompt: Prompt
    verifier: Block
    engine: Block
    labeler: Block | None
    trainer: Block | None
    eval: Block

    def to_json(self) -> dict[str, Any]:
        """Every field but the name, JSON-able."""
        blocks = {key: block.to_json() if (block := getattr(self, key)) else None for key in BLOCKS}
        return {
            "train_on": list(self.train_on),
            "label_with": self.label_with,
            "rounds": self.rounds,
            "init": self.init,
            "model": self.model.model_dump(mode="json"),
            "prompt": self.prompt.model_dump(mode="json"),
            **blocks,
        }


@dataclass(frozen=True)
class Claim:
    """A hypothesis about two conditions; `margin` belongs to not_worse_by and equivalent_within."""

    text: str
    kind: Literal["better", "not_worse_by", "equivalent_within"]
    better: str
    worse: str
    margin: float | None = None


@dataclass(frozen=True)
class Hypotheses:
    """What is claimed before the run, as one family of tests."""

    alpha: float = 0.05
    correction: Literal["holm", "bonferroni", "none"] = "holm"
    claims: tuple[Claim, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "correction": self.correction,
            "claims": [vars(claim) for claim in self.claims],
        }


class HypothesesConfig(_Frozen):
    """`hypotheses:` as written."""

    alpha: float = Field(default=0.05, gt=0, lt=1, description="Family-wise error rate of the claims together.")
    correction: Literal["holm", "bonferroni", "none"] = Field(default="holm")
    claims: list[Any] = Field(
        default_factory=list, description="`a > b`, or {compare: [a, b], not_worse_by: 0.02} and the like."
    )


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
    regions: list[str] = Field(default_factory=list, description="Regions to choose from; none means all.")
    infra: str | None = Field(default=None, description="Where to launch: a cloud, kubernetes, slurm/NAME, ssh/NAME.")
    disk_size: int | None = Field(default=None, gt=0, description="Disk in GB.")
    image_id: str | None = Field(default=None, description="Machine image or docker:IMAGE.")
    processes: int = Field(default=1, ge=1, description="Training processes started by accelerate on one machine.")


class Match(_Frozen):
    """Compute matching: in what unit every trained condition gets the same budget as `to`."""

    by: Literal["steps", "epochs", "tokens"] = Field(
        default="epochs", description="epochs: each condition takes its trainer's own epochs or steps."
    )
    to: str | None = Field(default=None, description="The condition whose budget all others get.")


class TopConfig(_Frozen):
    """The plain fields at the top of a spec."""

    name: str = Field(description="a name of its own, for folders and runs; it is not inherited through extends")
    question: str | None = Field(default=None, description="What the experiment asks, in a sentence.")
    seeds: list[Seed] = Field(default=[42], min_length=1, description="Every condition runs once with each.")
    resources: Resources = Resources()
    match: Match = Match()
    track: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        default_factory=list, description="Trackers that get the training curves."
    )


class ConditionConfig(_Frozen):
    """The fields of a condition beside its overrides."""

    train_on: list[Literal["labeled", "pseudo", "unlabeled"]] = Field(
        description="train_on: [] leaves the model untrained, [labeled] is the supervised baseline"
    )
    label_with: str | None = Field(default=None, description="The condition whose model gives the pseudo-labels.")
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


def load_spec(path: Path | str, *, run_files: bool = True) -> Experiment:
    """Read, merge, check and complete a spec. Raises SpecErrors, holding every error, and nothing else.

    With `run_files` False the file of a `./file.py:Name` plugin is not run (see the module's text).
    """
    path = Path(path)
    problems = Problems()
    tree = read_family(path, str(path), problems)
    if tree is None:
        problems.raise_if_any()
        raise AssertionError("a file that cannot be read leaves a problem")
    return _Loader(path, tree, problems, run_files).load()


def digest_config(config: BaseModel) -> dict[str, Any]:
    """A config as JSON-able data without its output-neutral fields, at any depth; what stage digests hash."""
    return {
        name: _digest_value(getattr(config, name))
        for name, info in type(config).model_fields.items()
        if not any(isinstance(mark, OutputNeutral) or mark is OutputNeutral for mark in info.metadata)
    } | {name: _digest_value(value) for name, value in sorted((config.model_extra or {}).items())}


def _digest_value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return digest_config(value)
    if isinstance(value, enum.Enum):
        return _digest_value(value.value)
    if isinstance(value, Mapping):
        return {str(key): _digest_value(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_digest_value(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True))
    if isinstance(value, (list, tuple)):
        return [_digest_value(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


# --------------------------------------------------------------------------- loading


@dataclass
class _Loader:
    """Carries one spec from its merged tree to an Experiment."""

    path: Path
    tree: Item
    problems: Problems
    run_files: bool
    blocks: dict[tuple[str, str, Path], Block] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)

    def load(self) -> Experiment:
        top = self.top()
        base = self.base()
        templates = self.templates()
        swept = expand_sweeps(templates, self.tree.mapping.get("sweep"), self.problems)
        conditions: dict[str, Condition] = {}
        for name, item in swept.conditions.items():
            condition = self.condition(name, merge_condition(base, item), item)
            if condition is None:
                self.broken.add(name)
            else:
                conditions[name] = condition
        self.check_teachers(conditions, swept)
        self.check_unused_blocks(base)
        hypotheses = self.hypotheses(swept)
        if top is not None:
            self.check_match(top.match, conditions)
        self.problems.raise_if_any()
        assert top is not None
        return self.experiment(top, conditions, hypotheses)

    def experiment(self, top: TopConfig, conditions: dict[str, Condition], hypotheses: Hypotheses | None) -> Experiment:
        resolved = {
            "name": top.name,
            "question": top.question,
            "seeds": top.seeds,
            "conditions": {name: condition.to_json() for name, condition in conditions.items()},
            "hypotheses": hypotheses.to_json() if hypotheses else None,
            "resources": top.resources.model_dump(mode="json"),
            "match": top.match.model_dump(mode="json"),
            "track": top.track,
        }
        return Experiment(
            name=top.name,
            question=top.question,
            seeds=tuple(top.seeds),
            conditions=conditions,
            hypotheses=hypotheses,
            resources=top.resources,
            match=top.match,
            track=tuple(top.track),
            path=self.path,
            text=self.tree.position.source.text,
            resolved=resolved,
        )

    # ----- the top

    def top(self) -> TopConfig | None:
        fields = {
            key: item
            for key, item in self.tree.mapping.items()
            if key in TopConfig.model_fields and (item.value is not None or key == "name")
        }
        top = validate(TopConfig, self.tree.with_value(fields), "", self.problems)
        name, seeds, track = (self.tree.mapping.get(key) for key in ("name", "seeds", "track"))
        if name is not None and isinstance(name.value, str):
            self.check_name(name)
        for item, what in ((seeds, "seed"), (track, "tracker")):
            if item is not None:
                self.check_repeats(item, what)
        return top

    def check_name(self, item: Item) -> None:
        name = str(item.value)
        if not NAME.fullmatch(name) or name in (".", ".."):
            fixed = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100]
            self.problems.add(
                item.position,
                f"the name {name[:60]!r} may hold only letters, digits, dots, - and _, for it names folders and runs",
                f"such as {fixed!r}" if fixed else None,
            )
        elif len(name) > 100:
            self.problems.add(item.position, "the name may have at most 100 characters")

    def check_repeats(self, item: Item, what: str) -> None:
        seen: set[Any] = set()
        for element in item.items:
            if isinstance(element.value, (dict, list)):
                continue
            if element.value in seen:
                self.problems.add(element.position, f"the {what} {element.raw} stands here twice")
            seen.add(element.value)

    def base(self) -> Item:
        entries = {key: item for key, item in self.tree.mapping.items() if key in OVERRIDABLE}
        return self.tree.with_value(
            {
                key: _with_use(item, DEFAULT_USE[key]) if key in DEFAULT_USE and item.value is not None else item
                for key, item in entries.items()
            }
        )

    def templates(self) -> dict[str, Item]:
        conditions = self.tree.mapping.get("conditions")
        if conditions is None or not conditions.value:
            place = conditions.place if conditions else Position(self.tree.position.source, 1, 1, 0)
            self.problems.add(place, "the spec has no conditions", "such as  conditions: {base: {train_on: []}}")
            return {}
        for name, item in conditions.mapping.items():
            if item.value is None:
                self.problems.add(
                    item.place, f"the condition {name!r} is empty", f"such as  {name}: {{train_on: [labeled]}}"
                )
        self.broken.update(name for name, item in conditions.mapping.items() if not isinstance(item.value, dict))
        return {name: item for name, item in conditions.mapping.items() if isinstance(item.value, dict)}

    # ----- conditions

    def condition(self, name: str, merged: Item, written: Item) -> Condition | None:
        before = len(self.problems)
        where = f"the condition {name!r}"
        own = {key: item for key, item in merged.mapping.items() if key in ConditionConfig.model_fields}
        own = {key: item for key, item in own.items() if item.value is not None}
        fields = validate(ConditionConfig, written.with_value(own), where, self.problems)
        items = {key: item for key, item in merged.mapping.items() if key in OVERRIDABLE and item.value is not None}
        if fields is None:
            return None
        self.check_repeats(own["train_on"], "source")
        pseudo = "pseudo" in fields.train_on
        if pseudo and "unlabeled" in fields.train_on:
            self.problems.add(
                own["train_on"].position,
                "pseudo and unlabeled are the same questions, once with guessed and once with true labels",
                "keep one of them",
            )
        data = self.needed("data", items, where, written)
        engine = self.block("engine", _use_or(items.get("engine"), DEFAULT_USE["engine"], self.tree))
        protocol = self.block("eval", _use_or(items.get("eval"), DEFAULT_USE["eval"], self.tree))
        dataset = cast(type[Dataset], data.cls) if data is not None else Dataset
        verifier = None
        if data is not None or "use" in (items["verifier"].mapping if "verifier" in items else {}):
            default = items.get("data", written)
            verifier = self.block("verifier", _use_or(items.get("verifier"), dataset.default_verifier, default))
        model = self.model(items.get("model"), engine, fields, where, written)
        prompt = self.prompt(items.get("prompt"), dataset.default_prompt, model)
        labeler = self.needed("labeler", items, f"{where} trains on pseudo-labels, so it", written) if pseudo else None
        trainer = self.needed("trainer", items, f"{where} trains, so it", written) if fields.train_on else None
        if not pseudo:
            self.no_effect(written, ("labeler", "label_with", "rounds", "init"), f"{where} has no pseudo in train_on")
        if not fields.train_on:
            self.no_effect(written, ("trainer",), f"{where} trains on nothing")
        if data is not None:
            self.check_split(data, fields, items["data"], own["train_on"], where)
        if labeler is not None:
            self.check_labeler(labeler, fields, own, where, written)
        if len(self.problems) > before or not (data and engine and protocol and verifier and model and prompt):
            return None
        return Condition(
            name=name,
            train_on=tuple(fields.train_on),
            label_with=fields.label_with,
            rounds=fields.rounds,
            init=fields.init,
            model=model,
            data=data,
            prompt=prompt,
            verifier=verifier,
            engine=engine,
            labeler=labeler,
            trainer=trainer,
            eval=protocol,
        )

    def needed(self, key: str, items: dict[str, Item], who: str, written: Item) -> Block | None:
        if key in items:
            return self.block(key, items[key])
        if key not in self.missed:  # one error is enough, however many conditions need the block
            self.missed.add(key)
            names = ", ".join(registry.names(BLOCKS[key]))
            self.problems.add(written.place, f"{who} needs a block {key!r}", f"add it at the top; there are: {names}")
        return None

    def no_effect(self, written: Item, keys: tuple[str, ...], why: str) -> None:
        for key in keys:
            item = written.mapping.get(key)
            default = {"rounds": 1, "init": "base"}.get(key)
            if item is not None and item.value is not None and item.value != default:
                self.problems.add(item.place, f"{why}, so {key!r} has no effect", "remove it")

    def check_split(self, data: Block, fields: ConditionConfig, item: Item, train_on: Item, where: str) -> None:
        split = getattr(data.config, "split", None)
        if not isinstance(split, api.SplitConfig):
            return
        written = item.mapping.get("split", item)
        if split.test == 0:
            place = written.mapping.get("test", written).position
            self.problems.add(place, "data.split.test is 0: nothing could be measured", "null takes all there are")
        for source, pool in (("labeled", "labeled"), ("pseudo", "unlabeled"), ("unlabeled", "unlabeled")):
            if source in fields.train_on and getattr(split, pool) == 0:
                element = next((inner for inner in train_on.items if inner.value == source), train_on)
                self.problems.add(
                    element.position,
                    f"{where} trains on {source}, but data.split.{pool} is 0",
                    f"give data.split.{pool} a number of questions",
                )

    def check_labeler(
        self, labeler: Block, fields: ConditionConfig, own: dict[str, Item], where: str, written: Item
    ) -> None:
        needs_model = bool(getattr(labeler.cls, "needs_model", True))
        if isinstance(labeler.config, UncheckedConfig):
            return
        if needs_model and fields.label_with is None:
            self.problems.add(
                written.place,
                f"{where} trains on pseudo-labels, so it needs label_with: the condition whose model labels",
            )
        if not needs_model:
            if fields.init == "teacher" and fields.label_with is None:
                self.problems.add(
                    own["init"].place, f"{where}: init: teacher needs label_with, the condition to start from"
                )
            if fields.init == "base" and fields.label_with is not None:
                self.problems.add(
                    own["label_with"].place,
                    f"{where}: the labeler {labeler.use!r} asks no model, so 'label_with' has no effect",
                    "remove it",
                )
            if fields.rounds > 1:
                self.problems.add(
                    own["rounds"].place,
                    f"{where}: the labeler {labeler.use!r} asks no model, so more rounds give the same labels",
                    "remove it",
                )

    # ----- single blocks

    def block(self, key: str, item: Item) -> Block | None:
        """The block's plugin and typed config, or None with the errors in `problems`."""
        self.used.add(id(item.value))
        if not isinstance(item.value, dict):
            return None  # reported when the short forms were written out
        kind = BLOCKS[key]
        use = item.mapping.get("use")
        if use is None or use.value is None:
            suggestion = f"add use: with one of {', '.join(registry.names(kind))}"
            self.problems.add(item.place, f"{key} names no plugin", suggestion)
            return None
        if not isinstance(use.value, str):
            fix = how_to_fix("text", use)
            self.problems.add(use.position, f"{key}: use must be a plugin's name, is {describe(use)}", fix)
            return None
        folder = use.position.source.path.parent
        cache = (kind, json.dumps(item.plain()), folder)
        if cache not in self.blocks:
            block = self.fresh_block(key, item, use, folder)
            if block is None:
                return None
            self.blocks[cache] = block
        return self.blocks[cache]

    def fresh_block(self, key: str, item: Item, use: Item, folder: Path) -> Block | None:
        kind, name = BLOCKS[key], str(use.value)
        fields = item.with_value({field: inner for field, inner in item.mapping.items() if field != "use"})
        if registry.is_path(name) and not self.run_files:
            return Block(kind, name, _BASES[kind], UncheckedConfig(**fields.plain()))
        cls = self.find(key, kind, name, use, folder)
        if cls is None:
            return None
        config = validate(cls.Config, fields, f"{key} ({name})", self.problems)
        return None if config is None else Block(kind, name, cls, config)

    def find(self, key: str, kind: str, name: str, use: Item, folder: Path) -> type[Plugin] | None:
        try:
            return registry.find(kind, name, folder)
        except InputError as error:
            known = registry.names(kind)
            if name in known or registry.is_path(name):
                self.problems.add(use.position, str(error).replace(f"{folder.resolve()}{os.sep}", ""))
            else:
                self.problems.add(use.position, f"there is no {kind} {name!r}", did_you_mean(name, known))
        except Exception as error:  # a third party's module may raise anything
            self.problems.add(use.position, f"the {kind} {name!r} cannot be loaded: {type(error).__name__}: {error}")
        return None

    def model(
        self, item: Item | None, engine: Block | None, fields: ConditionConfig, where: str, written: Item
    ) -> ModelSpec | None:
        if item is None:
            if engine is not None and not getattr(engine.cls, "needs_model", True) and not fields.train_on:
                return ModelSpec(path="none")
            if "model" not in self.missed:
                self.missed.add("model")
                self.problems.add(
                    written.place, f"{where} has no model", "add  model: builtin:wordmath-1m  or a hub id at the top"
                )
            return None
        self.used.add(id(item.value))
        if not isinstance(item.value, dict):
            return None
        model = validate(ModelSpec, item, "model", self.problems)
        if model is None:
            return None
        path = item.mapping["path"]
        scheme, _, name = model.path.partition(":")
        if scheme == "builtin" and name not in BUILT_IN_MODELS:
            near = [f"builtin:{known}" for known in BUILT_IN_MODELS]
            self.problems.add(path.position, f"there is no built-in model {name!r}", did_you_mean(model.path, near))
        elif scheme != "builtin" and not _LOCAL.match(model.path) and not _HUB_ID.fullmatch(model.path):
            self.problems.add(
                path.position,
                f"the model {model.path[:80]!r} is neither a hub id (owner/name) nor a local folder",
                "a local folder starts with ./ or /",
            )
        return model

    def prompt(self, item: Item | None, default: Prompt, model: ModelSpec | None) -> Prompt | None:
        prompt = default
        if item is not None:
            self.used.add(id(item.value))
            if not isinstance(item.value, dict):
                return None
            written = validate(Prompt, item, "prompt", self.problems)
            if written is None:
                return None
            prompt = default.model_copy(update={name: getattr(written, name) for name in written.model_fields_set})
        if model is not None and model.chat is not None:
            prompt = prompt.model_copy(update={"chat": model.chat})
        if item is not None and "{question}" not in prompt.template and "template" in item.mapping:
            self.problems.add(item.mapping["template"].position, "the prompt's template has no {question} in it")
        if item is not None and prompt.system is not None and not prompt.chat:
            place = item.mapping["system"].place if "system" in item.mapping else item.place
            self.problems.add(place, "a system message needs chat: true", "add  chat: true  to the prompt")
        return prompt

    def check_unused_blocks(self, base: Item) -> None:
        """Check a block that every condition replaces or none needs; keys may then be missing."""
        for key, item in base.mapping.items():
            if not isinstance(item.value, dict) or id(item.value) in self.used:
                continue
            alone = Problems()
            checker = _Loader(self.path, self.tree, alone, self.run_files)
            if key in BLOCKS and "use" in item.mapping:
                checker.block(key, item)
            elif key == "prompt":
                validate(Prompt, item, "prompt", alone)
            elif key == "model":
                validate(ModelSpec, item, "model", alone)
            for found, error in alone.found.items():
                if " needs the key " not in error.message:
                    self.problems.found.setdefault(found, error)

    # ----- references between conditions

    def check_teachers(self, conditions: dict[str, Condition], swept: Swept) -> None:
        teachers: dict[str, str] = {}
        for name, item in swept.conditions.items():
            teacher = item.mapping.get("label_with")
            sources = [source.value for source in item.mapping.get("train_on", item).items]
            if teacher is None or not isinstance(teacher.value, str) or "pseudo" not in sources:
                continue  # without pseudo-labels it has no effect, which is said elsewhere
            if self.known(teacher, swept):
                teachers[name] = teacher.value
        reported: set[str] = set()
        for name in teachers:
            chain = [name]
            while (after := teachers.get(chain[-1])) is not None and after not in chain:
                chain.append(after)
            if after == name and name not in reported:
                reported.update(chain)
                place = swept.conditions[name].mapping["label_with"].position
                if len(chain) == 1:
                    self.problems.add(
                        place, f"{name!r} cannot label for itself", "rounds: 2 labels again with the improved model"
                    )
                else:
                    circle = " -> ".join([*chain, name])
                    self.problems.add(place, f"label_with goes in a circle: {circle}")
        for name, condition in conditions.items():
            teacher_condition = conditions.get(condition.label_with or "")
            if condition.init != "teacher" or teacher_condition is None:
                continue
            mine, theirs = condition.model, teacher_condition.model
            if (mine.path, mine.revision) != (theirs.path, theirs.revision):
                self.problems.add(
                    swept.conditions[name].mapping["init"].place,
                    f"{name!r} starts from the weights of {teacher_condition.name!r} ({theirs.path}), "
                    f"but its model is {mine.path}",
                    "give both the same model, or use init: base",
                )

    def known(self, item: Item, swept: Swept, what: str = "condition") -> bool:
        name = str(item.value)
        if name in swept.conditions or name in self.broken:
            return True
        if name in swept.points:
            points = ", ".join(swept.points[name][:6])
            self.problems.add(item.position, f"{name!r} is swept: name one of its points", f"there are: {points}")
        else:
            self.problems.add(
                item.position, f"there is no {what} {name!r}", did_you_mean(name, [*swept.conditions, *self.broken])
            )
        return False

    def check_match(self, match: Match, conditions: dict[str, Condition]) -> None:
        item = self.tree.mapping.get("match")
        target = item.mapping.get("to") if item is not None else None
        if item is None or target is None or match.to is None or match.to in self.broken:
            return
        if match.by == "epochs":
            self.problems.add(target.place, "match.to has no effect with epochs", "match by steps or tokens")
        elif match.to not in conditions:
            names = [*conditions, *self.broken]
            self.problems.add(target.position, f"there is no condition {match.to!r}", did_you_mean(match.to, names))
        elif not conditions[match.to].train_on:
            self.problems.add(target.position, f"{match.to!r} trains on nothing, so it has no budget to match")

    # ----- hypotheses

    def hypotheses(self, swept: Swept) -> Hypotheses | None:
        item = self.tree.mapping.get("hypotheses")
        if item is None or item.value is None:
            return None
        config = validate(HypothesesConfig, item, "hypotheses", self.problems)
        claims: list[Claim] = []
        written = item.mapping.get("claims")
        for element in written.items if written is not None else []:
            for claim in self.claim(element, swept):
                if any((claim.kind, claim.better, claim.worse) == (c.kind, c.better, c.worse) for c in claims):
                    self.problems.add(element.position, f"the claim {claim.text!r} stands here twice")
                claims.append(claim)
        return None if config is None else Hypotheses(config.alpha, config.correction, tuple(claims))

    def claim(self, item: Item, swept: Swept) -> list[Claim]:
        kind, margin = "better", None
        if isinstance(item.value, str):
            match = _CLAIM.fullmatch(item.value)
            if match is None:
                self.problems.add(item.position, f"cannot read the claim {item.value[:80]!r}", _CLAIM_FORMS)
                return []
            a, sign, b = match.groups()
            pair = [item.with_value(a), item.with_value(b)]
            if sign == "<":
                pair.reverse()
        elif isinstance(item.value, dict):
            config = validate(ClaimConfig, item, "the claim", self.problems)
            if config is None:
                return []
            pair = item.mapping["compare"].items
            margins = {key: getattr(config, key) for key in ("not_worse_by", "equivalent_within")}
            given = [key for key, value in margins.items() if value is not None] + ["better"] * bool(config.better)
            if len(given) != 1:
                self.problems.add(
                    item.position, "a claim says one of better, not_worse_by or equivalent_within", _CLAIM_FORMS
                )
                return []
            kind, margin = given[0], margins.get(given[0])
        else:
            self.problems.add(item.position, f"a claim must be text or a mapping, is {describe(item)}", _CLAIM_FORMS)
            return []
        pairs = self.claim_pairs(pair, swept)
        return [_claim(kind, a, b, margin) for a, b in pairs]

    def claim_pairs(self, pair: list[Item], swept: Swept) -> list[tuple[str, str]]:
        """The conditions that a claim compares; a swept condition stands for each of its points."""
        names = [str(item.value) for item in pair]
        if names[0] == names[1]:
            self.problems.add(pair[0].position, f"the claim compares {names[0]!r} with itself")
            return []
        spread = [swept.points.get(name) for name in names]
        if spread[0] and spread[1] and swept.sweep_of[names[0]] != swept.sweep_of[names[1]]:
            self.problems.add(
                pair[0].position, f"{names[0]!r} and {names[1]!r} are swept apart: name the points to compare"
            )
            return []
        known = [bool(points) or self.known(item, swept) for points, item in zip(spread, pair, strict=True)]
        if not all(known):
            return []
        size = max(len(points) if points else 1 for points in spread)
        columns = [points or [name] * size for points, name in zip(spread, names, strict=True)]
        return list(zip(*columns, strict=True))


class ClaimConfig(_Frozen):
    """A claim written as a mapping."""

    compare: list[str] = Field(min_length=2, max_length=2, description="the two conditions, [a, b]")
    better: Literal[True] | None = Field(default=None, description="a is better than b.")
    not_worse_by: float | None = Field(default=None, gt=0, lt=1, description="a is worse than b by less than this.")
    equivalent_within: float | None = Field(default=None, gt=0, lt=1, description="a and b differ by less than this.")


_BASES: dict[str, type[Plugin]] = {
    "dataset": api.Dataset,
    "verifier": api.Verifier,
    "engine": api.Engine,
    "labeler": api.Labeler,
    "trainer": api.Trainer,
    "protocol": api.Protocol,
}
_CLAIM = re.compile(r"\s*([A-Za-z0-9._-]+)\s*([<>])\s*([A-Za-z0-9._-]+)\s*")
_CLAIM_FORMS = "write  a > b  or  {compare: [a, b], not_worse_by: 0.02}  or  {compare: [a, b], equivalent_within: 0.02}"
_LOCAL = re.compile(r"\.{1,2}/|/|~")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def _claim(kind: str, a: str, b: str, margin: float | None) -> Claim:
    if kind == "better":
        return Claim(f"{a} > {b}", "better", a, b)
    if kind == "not_worse_by":
        return Claim(f"{a} not worse than {b} by {margin:g}", "not_worse_by", a, b, margin)
    return Claim(f"{a} equivalent to {b} within {margin:g}", "equivalent_within", a, b, margin)


def _with_use(item: Item, use: str) -> Item:
    if "use" in item.mapping:
        return item
    return item.with_value({"use": Item(use, item.position, raw=use), **item.mapping})


def _use_or(item: Item | None, use: str, default_place: Item) -> Item:
    """The block with `use` filled in where it is not written; a whole default stands at `default_place`."""
    return _with_use(item if item is not None else Item({}, default_place.position, key=default_place.key), use)


assert set(ConditionConfig.model_fields) | set(OVERRIDABLE) == set(CONDITION_KEYS)

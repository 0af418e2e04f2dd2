"""From a merged tree to a checked `Experiment`: defaults, conditions, and what they say about each other.

    experiment = load_spec(Path("specs/quickstart.yaml"), run_files=True)

Everything is checked before anything is raised. An error that only follows from another one (a condition whose block
could not be read) is not reported again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsd.plugins import registry
from nsd.plugins.api import Dataset, Engine, Labeler, Protocol, Trainer, Verifier
from nsd.runner.spec.between import Between
from nsd.runner.spec.blocks import BlockReader, use_or, with_use
from nsd.runner.spec.check import validate
from nsd.runner.spec.claims import read_hypotheses
from nsd.runner.spec.controls import read_controls
from nsd.runner.spec.discovery import check_search, searches
from nsd.runner.spec.errors import Position, Problems
from nsd.runner.spec.evaluations import check_differ, check_override, parts_of, protocol_of, read_names, written_of
from nsd.runner.spec.merge import BLOCKS, NAME, OVERRIDABLE, merge_condition, read_family
from nsd.runner.spec.model import (
    Block,
    Condition,
    ConditionConfig,
    Evaluation,
    Experiment,
    Hypotheses,
    Made,
    ModelSpec,
    TopConfig,
    UncheckedConfig,
    Validating,
    holds,
)
from nsd.runner.spec.sources import check_answerless, check_asked, check_same_questions, check_split
from nsd.runner.spec.sweep import expand_sweeps
from nsd.runner.spec.validation import read_validation
from nsd.runner.spec.votes import check_reward_votes, check_rounds, check_samples_differ, check_votes
from nsd.runner.spec.yaml import Item

DEFAULT_USE = {"engine": "hf", "eval": "accuracy"}


def load_spec(path: Path | str, *, run_files: bool = False) -> Experiment:
    """Read, merge, check and complete a spec. Raises SpecErrors, holding every error, and nothing else.

    Only with `run_files` the file of a `./file.py:Name` plugin is run (see runner/spec/model.py).
    """
    path, problems = Path(path), Problems()
    tree = read_family(path, str(path), problems)
    if tree is None:
        problems.raise_if_any()
        raise AssertionError("a file that cannot be read leaves a problem")
    return _Loader(path, tree, problems, BlockReader(problems, run_files)).load()


@dataclass
class _Loader:
    """Carries one spec from its merged tree to an Experiment.

    `missed` are the blocks whose absence was reported, `broken` the conditions that are named but not right.
    """

    path: Path
    tree: Item
    problems: Problems
    reader: BlockReader
    missed: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    evals: tuple[str, ...] = ()

    def load(self) -> Experiment:
        top = self.top()
        self.evals = read_names(self.tree, self.problems)
        base = self.base()
        templates = self.templates()
        swept = expand_sweeps(templates, self.tree.mapping.get("sweep"), self.problems)
        swept.conditions.update(read_controls(self.tree, self.problems))
        conditions: dict[str, Condition] = {}
        for name, item in swept.conditions.items():
            merged = merge_condition(base, item)
            condition = self.condition(name, merged, item)
            if condition is None:
                self.broken.add(name)
            else:
                conditions[name] = condition
                self.check_engine(condition, merged.mapping.get("engine"), item)
        between = Between(self.tree, swept, conditions, self.broken, self.problems)
        between.check_teachers()
        self.check_unused_blocks(base)
        lacking = {
            name: [one.name for one in conditions.values() if name not in {each.name for each in one.evals}]
            for name in self.evals
        }
        written = self.tree.mapping.get("hypotheses")
        hypotheses = read_hypotheses(written, swept, between.known, self.problems, lacking, between.apart)
        validation = read_validation(self.tree.mapping.get("validation"), self.reader, self.problems)
        if top is not None:
            between.check_match(top.match)
            between.check_counted(top.match)
            between.check_validation(validation)
            between.check_best(validation, top.match)
            between.check_processes(top.resources)
            between.check_adapters()
        self.problems.raise_if_any()
        assert top is not None
        return self.experiment(top, conditions, hypotheses, validation)

    def experiment(
        self,
        top: TopConfig,
        conditions: dict[str, Condition],
        hypotheses: Hypotheses | None,
        validation: Validating | None,
    ) -> Experiment:
        resolved = {
            "name": top.name,
            "question": top.question,
            "seeds": top.seeds,
            "conditions": {name: condition.to_json() for name, condition in conditions.items()},
            "hypotheses": hypotheses.to_json() if hypotheses else None,
            "resources": top.resources.model_dump(mode="json"),
            "match": top.match.to_json(),
            "track": top.track,
            **({} if validation is None else {"validation": validation.to_json()}),
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
            validation=validation,
            evals=self.evals,
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
        entries = {key: item for key, item in self.tree.mapping.items() if key in (*OVERRIDABLE, "evals")}
        if self.evals:
            entries.pop("eval", None)  # where both are given it is reported
        return self.tree.with_value(
            {
                key: with_use(item, DEFAULT_USE[key]) if key in DEFAULT_USE and item.value is not None else item
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
        check_same_questions(own["train_on"], fields.label_on, self.problems)
        check_override(written, self.evals, where, self.problems)
        evals = written_of(merged, self.evals)
        if evals:
            items["eval"] = protocol_of(next(iter(evals.values())))
        data = self.needed(Dataset, "data", items, where, written)
        engine = self.reader.block(Engine, "engine", use_or(items.get("engine"), DEFAULT_USE["engine"], self.tree))
        protocol = self.reader.block(Protocol, "eval", use_or(items.get("eval"), DEFAULT_USE["eval"], self.tree))
        dataset = data.cls if data is not None else Dataset
        verifier = None
        if data is not None or "use" in (items["verifier"].mapping if "verifier" in items else {}):
            default = items.get("data", written)
            verifier = self.verifier(data, items.get("verifier"), dataset, default)
        model = self.model(items.get("model"), engine, fields, where, written)
        data_known = data is None or not isinstance(data.config, UncheckedConfig)
        prompt = self.reader.prompt(items.get("prompt"), dataset.default_prompt, model, data_known)
        labeler, trainer, train_verifier = None, None, None
        measured = {label: self.evaluation(label, entry, items, model) for label, entry in evals.items()}
        protocols = [one.protocol for one in measured.values() if one is not None] if evals else [protocol]
        told = any((found := searches(one)) is not None and found.by != "sampling" for one in protocols)
        if pseudo:
            labeler = self.needed(Labeler, "labeler", items, f"{where} trains on pseudo-labels, so it", written)
        if fields.train_on:
            trainer = self.needed(Trainer, "trainer", items, f"{where} trains, so it", written)
        if fields.train_on and not told:
            train_verifier = self.train_verifier(items.get("train_verifier"), trainer, pseudo, where, written)
        elif told and "train_verifier" in items:
            train_verifier = self.reader.block(Verifier, "train_verifier", items["train_verifier"])
        if not pseudo:
            keys = ("labeler", "label_with", "label_on", "rounds", "init")
            self.no_effect(written, keys, f"{where} has no pseudo in train_on")
        if not fields.train_on:
            unused = ("trainer",) if told else ("trainer", "train_verifier")
            self.no_effect(written, unused, f"{where} trains on nothing")
        if data is not None:
            check_split(data, items["data"], own["train_on"], fields.label_on, where, self.problems)
        judge = train_verifier if "train_verifier" in items else verifier
        if trainer is not None:
            check_answerless(trainer, judge, own["train_on"], where, self.problems)
            if "trainer" in items:
                check_reward_votes(trainer, judge, items["trainer"], self.problems)
        if labeler is not None:
            self.check_labeler(labeler, fields, own, where, written)
            check_votes(labeler, judge, items["labeler"], "use another labeler", self.problems)
            check_rounds(labeler, judge, items["labeler"], self.problems)
            check_samples_differ(labeler, engine, items["labeler"], self.problems)
        lora = model is not None and model.lora is not None
        teller = train_verifier if "train_verifier" in items else None
        for label, one in measured.items():
            if one is not None:
                self.check_protocol(one.protocol, one.verifier, teller, engine, lora, evals[label], where)
        if not evals and protocol is not None:
            self.check_protocol(protocol, verifier, teller, engine, lora, items.get("eval", written), where)
        weights = self.reader.weights(items.get("model"), model) if model is not None else ""
        if len(self.problems) > before or not (data and engine and protocol and verifier and model and prompt):
            return None
        made = Condition(
            name=name,
            train_on=tuple(fields.train_on),
            label_with=fields.label_with,
            label_on=fields.label_on,
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
            weights=weights,
            from_file=_from_file(data, items),
            train_verifier=train_verifier,
            evals=tuple(one for one in measured.values() if one is not None),
        )
        check_differ(made, evals, self.problems)
        return made

    def evaluation(self, name: str, entry: Item, items: dict[str, Item], model: ModelSpec | None) -> Evaluation | None:
        """One of a condition's named evaluations; `items` are the condition's blocks."""
        parts = parts_of(entry, items)
        protocol = self.reader.block(Protocol, "eval", use_or(protocol_of(entry), DEFAULT_USE["eval"], entry))
        data = self.reader.block(Dataset, "data", parts["data"]) if "data" in parts else None
        if data is None:
            return None  # reported, or that the spec has no data is
        if entry.mapping.get("data", entry.with_value(None)).value is not None:
            check_asked(data, parts["data"], f"evals.{name}.data", self.problems)
        verifier = self.verifier(data, parts.get("verifier"), data.cls, parts["data"])
        known = not isinstance(data.config, UncheckedConfig)
        prompt = self.reader.prompt(parts.get("prompt"), data.cls.default_prompt, model, known)
        if not (protocol and verifier and prompt):
            return None
        return Evaluation(name, data, prompt, verifier, protocol, _from_file(data, parts))

    def check_protocol(
        self,
        protocol: Block[Protocol],
        verifier: Block[Verifier] | None,
        told: Block[Verifier] | None,
        engine: Block[Engine] | None,
        lora: bool,
        item: Item,
        where: str,
    ) -> None:
        """Whether engine and verifiers can serve a protocol; `told` judges what an attempt of a search is told."""
        check_votes(protocol, verifier, item, "use accuracy, avg_at_k or pass_at_k", self.problems)
        check_samples_differ(protocol, engine, item, self.problems)
        search = searches(protocol)
        if search is None:
            return
        judge = verifier if told is None else told
        check_search(protocol, search, engine, judge, lora, item, where, self.problems, judge is not verifier)
        if (searching := protocol.nested.get(("trainer",))) is not None:
            block = item.mapping.get("trainer", item)
            check_votes(searching, judge, block, "use another trainer", self.problems)
            if holds(searching, Trainer):
                check_reward_votes(searching, judge, block, self.problems)

    def verifier(
        self, data: Block[Dataset] | None, item: Item | None, dataset: type[Dataset], default: Item
    ) -> Block[Verifier] | None:
        """The verifier. A dataset in a file that was not run does not say which one is the default, nor its fields."""
        names_one = item is not None and "use" in item.mapping
        if data is not None and isinstance(data.config, UncheckedConfig) and not names_one:
            written = item.plain() if item is not None else {}
            if item is not None:
                self.reader.used.add(id(item.value))
            return Block("verifier", data.use, data.place, Verifier, UncheckedConfig(**written), written)
        return self.reader.block(Verifier, "verifier", use_or(item, dataset.default_verifier, default))

    def train_verifier(
        self, item: Item | None, trainer: Block[Trainer] | None, pseudo: bool, where: str, written: Item
    ) -> Block[Verifier] | None:
        """The training's own verifier; None where there is none, or where nothing is voted and the trainer copies."""
        if item is None:
            return None
        if trainer is not None and trainer.cls.needs_targets and not pseudo:
            judges_none = f"the trainer {trainer.use!r} of {where} copies texts and judges none"
            self.no_effect(written, ("train_verifier",), judges_none)
            if not registry.is_path(trainer.use):  # a digest is the same whether or not files were run
                return None
        return self.reader.block(Verifier, "train_verifier", item)

    def check_engine(self, condition: Condition, item: Item | None, written: Item) -> None:
        """An engine that loads no weights cannot show what a training did."""
        if not condition.train_on or condition.engine.cls.needs_model:
            return
        use = condition.engine.use
        self.problems.add(
            item.place if item is not None else written.place,
            f"the condition {condition.name!r} trains, but its engine {use!r} loads no weights: the trained model "
            "would be ignored wherever it is to answer",
            f"give {condition.name!r} an engine that does, such as  engine: hf"
            + "; a condition that trains on nothing may ask a served model, and label for others (label_with)"
            * condition.engine.cls.served,
        )

    def needed(self, base: type[Made], key: str, items: dict[str, Item], who: str, written: Item) -> Block[Made] | None:
        if key in items:
            return self.reader.block(base, key, items[key])
        if key not in self.missed:  # one error is enough, however many conditions need the block
            self.missed.add(key)
            names = ", ".join(registry.names(BLOCKS[key]))
            self.problems.add(written.place, f"{who} needs a block {key!r}", f"add it at the top; there are: {names}")
        return None

    def no_effect(self, written: Item, keys: tuple[str, ...], why: str) -> None:
        for key in keys:
            item = written.mapping.get(key)
            default = {"rounds": 1, "init": "base", "label_on": "unlabeled"}.get(key)
            if item is not None and item.value is not None and item.value != default:
                self.problems.add(item.place, f"{why}, so {key!r} has no effect", "remove it")

    def check_labeler(
        self, labeler: Block[Labeler], fields: ConditionConfig, own: dict[str, Item], where: str, written: Item
    ) -> None:
        needs_model = labeler.cls.needs_model
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

    def model(
        self, item: Item | None, engine: Block[Engine] | None, fields: ConditionConfig, where: str, written: Item
    ) -> ModelSpec | None:
        if item is not None:
            return self.reader.model(item)
        loads_none = engine is not None and (isinstance(engine.config, UncheckedConfig) or not engine.cls.needs_model)
        if loads_none and not fields.train_on:
            return ModelSpec(path="none")
        if "model" not in self.missed:
            self.missed.add("model")
            suggestion = "add  model: builtin:wordmath-1m  or a hub id at the top"
            self.problems.add(written.place, f"{where} has no model", suggestion)
        return None

    def check_unused_blocks(self, base: Item) -> None:
        """Check a block that every condition replaces or none needs."""
        for key, item in base.mapping.items():
            if isinstance(item.value, dict) and id(item.value) not in self.reader.used:
                self.reader.check_alone(key, item)


def _from_file(data: Block[Dataset], items: dict[str, Item]) -> dict[str, Any]:
    """The resolved spec's prompt and verifier where a dataset in a file decides them: as they were written.

    So they are the same whether or not the file was run.
    """
    if not registry.is_path(data.use):
        return {}
    said: dict[str, Any] = {"prompt": items["prompt"].plain() if "prompt" in items else {}}
    if "verifier" not in items or "use" not in items["verifier"].mapping:
        said["verifier"] = items["verifier"].plain() if "verifier" in items else None
    return said

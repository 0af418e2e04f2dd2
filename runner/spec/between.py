"""What the conditions of a spec say about each other, and what a machine would have to give them.

Names that only follow from another error (a condition that could not be read) are not reported again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from nsd.plugins.api import Protocol, Sampling, SplitConfig, Trainer, Verifier
from nsd.plugins.metrics import comparable
from nsd.runner.spec.digest import digest_config
from nsd.runner.spec.discovery import searches
from nsd.runner.spec.errors import Position, Problems, suggest
from nsd.runner.spec.model import Block, Condition, Match, Resources, UncheckedConfig, Validating
from nsd.runner.spec.sweep import Swept
from nsd.runner.spec.yaml import Item

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Between:
    """The conditions that are right, by name, beside all there are; `broken` are named but not right."""

    tree: Item
    swept: Swept
    conditions: Mapping[str, Condition]
    broken: Collection[str]
    problems: Problems

    def check_teachers(self) -> None:
        """Who labels for whom exists, in no circle, and has the weights that another starts from."""
        teachers: dict[str, str] = {}
        for name, item in self.swept.conditions.items():
            teacher = item.mapping.get("label_with")
            sources = [source.value for source in item.mapping.get("train_on", item).items]
            if teacher is None or not isinstance(teacher.value, str) or "pseudo" not in sources:
                continue  # without pseudo-labels it has no effect, which is said elsewhere
            if self.known(teacher):
                teachers[name] = teacher.value
        reported: set[str] = set()
        for name in teachers:
            chain = [name]
            while (after := teachers.get(chain[-1])) is not None and after not in chain:
                chain.append(after)
            if after == name and name not in reported:
                reported.update(chain)
                place = self.swept.conditions[name].mapping["label_with"].position
                if len(chain) == 1:
                    self.problems.add(
                        place, f"{name!r} cannot label for itself", "rounds: 2 labels again with the improved model"
                    )
                else:
                    circle = " -> ".join([*chain, name])
                    self.problems.add(place, f"label_with goes in a circle: {circle}")
        for name, condition in self.conditions.items():
            teacher_condition = self.conditions.get(condition.label_with or "")
            if condition.init != "teacher" or teacher_condition is None:
                continue
            mine, theirs = condition.model, teacher_condition.model
            if (condition.weights, mine.revision) != (teacher_condition.weights, theirs.revision):
                self.problems.add(
                    self.swept.conditions[name].mapping["init"].place,
                    f"{name!r} starts from the weights of {teacher_condition.name!r} ({theirs.path}), "
                    f"but its model is {mine.path}",
                    "give both the same model, or use init: base",
                )

    def known(self, item: Item) -> bool:
        """Whether a condition of this name is there; one that is not is reported."""
        name = str(item.value)
        if name in self.swept.conditions or name in self.broken:
            return True
        if name in self.swept.points:
            points = ", ".join(self.swept.points[name][:6])
            self.problems.add(item.position, f"{name!r} is swept: name one of its points", f"there are: {points}")
        else:
            self.problems.add(
                item.position, f"there is no condition {name!r}", suggest(name, [*self.swept.conditions, *self.broken])
            )
        return False

    def apart(self, better: str, worse: str) -> str:
        """What two conditions, as an evaluation measures them, are measured with that differs; "" where nothing does.

        Whether their questions are the same is found out when planning.
        """
        named = {one.name: one for condition in self.conditions.values() for _, one in condition.measured()}
        a, b = named.get(worse), named.get(better)
        if a is None or b is None:
            return ""
        found = []
        verifiers = [_said(one.verifier) for one in (a, b)]
        if None not in verifiers and verifiers[0] != verifiers[1]:
            names = " and ".join(dict.fromkeys(one.verifier.use for one in (a, b)))
            found.append(f"different verifiers ({names})")
        metrics = [None if one.eval.not_run is not None else one.eval.make().metric() for one in (a, b)]
        known = {one for one in metrics if one is not None}
        if None not in metrics and len(known) == 2 and not comparable(known):
            found.append(f"different metrics ({metrics[0]} and {metrics[1]})")
        return " and ".join(found)

    def check_match(self, match: Match) -> None:
        """`match.to` names a condition that has a budget."""
        item = self.tree.mapping.get("match")
        if item is None:
            return
        self._check_amount(item, match)
        target = item.mapping.get("to")
        if target is None or match.to is None or match.to in self.broken or match.amount is not None:
            return
        if match.by == "epochs":
            self.problems.add(target.place, "match.to has no effect with epochs", "match by steps or tokens")
        elif self.known(target) and not self.conditions[match.to].train_on:
            self.problems.add(target.position, f"{match.to!r} trains on nothing, so it has no budget to match")

    def check_counted(self, match: Match) -> None:
        """What a budget counts is there before the run: texts for tokens, of an arm whose examples are known, or steps.

        The same as `runner.plan.budget` asks.
        """
        item = self.tree.mapping.get("match")
        if item is None or match.by not in ("tokens", "steps"):
            return
        trained = [one for one in self.conditions.values() if one.trainer is not None and one.trainer.not_run is None]
        place = item.mapping.get("by", item).position
        for one in trained:
            trainer = one.trainer
            assert trainer is not None
            if match.by == "tokens" and not trainer.cls.needs_targets:
                told = f"match: tokens counts the tokens of training texts, which the trainer {trainer.use!r} of "
                self.problems.add(place, f"{told}{one.name!r} does not have", "match by steps or generated_tokens")
                return
        if match.amount is not None:
            return
        if match.by == "steps":
            for one, _ in self._ask(lambda _, trainer: True if trainer.planned_steps(100) is None else None):
                told = f"match: steps needs to know the steps of {one.name!r} before the run, and its trainer cannot"
                self.problems.add(place, f"{told} tell", "use match: tokens, or match.amount")
                return
            return
        for use in dict.fromkeys(one.trainer.use for one in trained if one.trainer is not None):
            peers = [one for one in trained if one.trainer is not None and one.trainer.use == use]
            named = [one for one in peers if one.name == match.to]
            if all("pseudo" in one.train_on for one in named or peers):
                first = (named or peers)[0].name
                told = f"match: tokens needs an arm whose training texts are known before the run; {first!r}"
                fix = "name another:  match: {by: tokens, to: CONDITION}, or an amount"
                self.problems.add(place, f"{told} trains on pseudo-labels", fix)
                return

    def _check_amount(self, item: Item, match: Match) -> None:
        """A budget is that of one condition, or an amount; what no condition has before it ran is an amount."""
        amount, unit = item.mapping.get("amount"), match.by.replace("_", " ")
        if match.amount is None:
            if match.by in ("generated_tokens", "seconds"):
                by = item.mapping.get("by", item)
                told = f"match: {match.by} needs an amount, for nobody knows before a run how many {unit} an arm takes"
                example = 200000 if match.by == "generated_tokens" else 600
                self.problems.add(by.position, told, f"such as  match: {{by: {match.by}, amount: {example}}}")
            return
        assert amount is not None
        if match.by == "epochs":
            self.problems.add(amount.place, "match.amount has no effect with epochs", "match by steps or tokens")
        elif match.by != "seconds" and not isinstance(match.amount, int):
            self.problems.add(amount.position, f"match.amount must be a whole number of {unit}, is {amount.raw}")
        if match.to is not None and match.by != "epochs":
            told = f"match.to and match.amount both say how many {unit} every condition gets"
            self.problems.add(item.mapping["to"].place, told, "keep one of them")

    def check_validation(self, validation: Validating | None) -> None:
        """Every condition keeps a labeled question, and has answers to validate on and whole weights to draw from."""
        if validation is None:
            return
        block = self.tree.mapping["validation"]
        place, few = block.mapping["questions"].position, validation.questions
        counts = {}
        for name, condition in self.conditions.items():
            split = getattr(condition.data.config, "split", None)
            if isinstance(split, SplitConfig):
                counts[name] = split.labeled
        for name, count in counts.items():
            if 0 < count <= few:
                told = f"validation takes {few} labeled questions, and {name!r} has {count}: none would be left"
                self.problems.add(place, told, "take fewer, or give data.split.labeled more questions")
                break
        if counts and not any(counts.values()):
            told = "validation takes labeled questions, and data.split.labeled is 0"
            self.problems.add(place, told, "give data.split.labeled a number of questions")
        for name, condition in self.conditions.items():
            fields = getattr(condition.data.config, "fields", None)
            if fields is not None and getattr(fields, "answer", "") is None and _needs_answer(condition.verifier):
                told = f"validation needs answers, and the data of {name!r} have none (data.fields.answer is null)"
                self.problems.add(block.place, told, "name the field that holds them, or remove validation")
                break

        for name, condition in self.conditions.items():
            protocol = validation.protocol or condition.eval
            if condition.train_on and _samples_otherwise(protocol):
                how = "one question at a time" if searches(protocol) is not None else "within a number of tokens"
                told = f"validation cannot measure {name!r} by {protocol.use} {how}"
                self.problems.add(block.place, told, "give validation a protocol, such as  protocol: accuracy")
                break
        for name, condition in self.conditions.items():
            if condition.trainer is not None and getattr(condition.trainer.config, "fsdp", False):
                told = f"validation draws completions while {name!r} trains, whose trainer.fsdp spreads the weights"
                self.problems.add(block.place, told, "leave out one of them")
                break

    def check_best(self, validation: Validating | None, match: Match) -> None:
        """Who measures what validation kept has a validation that keeps it, and a budget that it is the best of."""
        told_of: set[tuple[Position, str]] = set()  # what and where: an eval above the conditions is told of once

        def tell(place: Position, name: str, fault: str, way_out: str) -> None:
            told = f"eval {protocol.use} of {name!r} measures the best weights of a training"
            if (at := (place, fault)) not in told_of:
                told_of.add(at)
                self.problems.add(place, f"{told}{fault}", way_out)

        for name, protocol in self._protocols():
            if protocol.not_run is not None or not protocol.cls.on_validation:
                continue
            key = "evals" if self.conditions[name].evals else "eval"
            place = self.swept.conditions[name].mapping.get(key, self.tree.mapping.get(key, self.tree)).place
            if validation is None or validation.keep != "best":
                lacks = "there is no validation" if validation is None else "validation.keep is last"
                tell(place, name, f", and {lacks}", "validation: {questions: 50, every: 20, keep: best}")
            elif validation.protocol is not None and _drawn(validation.protocol) != _drawn(protocol):
                way_out = "leave validation.protocol out: it is then that of eval"
                tell(place, name, ", and validation measures them otherwise", way_out)
            if match.by not in ("seconds", "generated_tokens"):
                example = "match: {by: seconds, amount: 3600}  or  match: {by: generated_tokens, amount: 200000}"
                tell(place, name, " within a budget, and match gives none", example)

    def _protocols(self) -> Iterator[tuple[str, Block[Protocol]]]:
        """Every condition's name with the protocol of each of its evaluations."""
        for name, condition in self.conditions.items():
            for _, measured in condition.measured():
                yield name, measured.eval

    def check_processes(self, resources: Resources) -> None:
        """Processes that are asked for share every training's step evenly."""
        if resources.processes is None:
            return
        place = self.tree.mapping["resources"].mapping["processes"].position
        processes = resources.processes * resources.nodes
        rows = self._ask(lambda _, trainer: None if trainer.shares(processes) else trainer.rows_per_step())
        for condition, count in itertools.islice(rows, 1):
            self.problems.add(
                place,
                f"{processes} processes cannot share the {count} rows that a step of {condition.name!r} has evenly",
                "choose another number, or change the batch of its trainer (null takes as many GPUs as fit)",
            )

    def check_adapters(self) -> None:
        """Every trainer can train what it is given: all weights, or an adapter."""
        for condition, reason in self._ask(lambda one, trainer: trainer.unfit(None, one.model.lora is not None)):
            self.problems.add(self.swept.conditions[condition.name].place, f"condition {condition.name!r}: {reason}")

    def _ask(self, question: Callable[[Condition, Trainer], Answer | None]) -> Iterator[tuple[Condition, Answer]]:
        """The conditions for whose trainer there is an answer."""
        for condition in self.conditions.values():
            trainer = condition.trainer
            if trainer is None or trainer.not_run is not None or isinstance(trainer.config, UncheckedConfig):
                continue
            try:
                answer = question(condition, trainer.make())
            except Exception:  # a third party's class may do anything; its trainer says so when it runs
                continue
            if answer is not None:
                yield condition, answer


def _samples_otherwise(protocol: Block[Protocol]) -> bool:
    if protocol.not_run is not None:
        return False
    made = protocol.make()
    return made.generated_tokens() is not None or made.search() is not None


def _drawn(protocol: Block[Protocol]) -> tuple[str, Sampling] | None:
    """What a protocol measures, and on which samples; None for one in a file that was not run."""
    if protocol.not_run is not None:
        return None
    made = protocol.make()
    return made.metric(), made.sampling()


def _said(verifier: Block[Verifier]) -> tuple[str, str] | None:
    """What decides a verifier's verdicts; None for one in a file that was not run."""
    if verifier.not_run is not None:
        return None
    return verifier.place, json.dumps(digest_config(verifier.config), sort_keys=True, default=str)


def _needs_answer(verifier: Block[Verifier]) -> bool:
    return verifier.not_run is None and verifier.cls.needs_answer

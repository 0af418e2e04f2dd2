"""What the conditions of a spec say about each other, and what a machine would have to give them.

Names that only follow from another error (a condition that could not be read) are not reported again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from nsd.plugins.api import Trainer
from nsd.runner.spec.errors import Problems, suggest
from nsd.runner.spec.model import Condition, Match, Resources, UncheckedConfig
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

    def check_match(self, match: Match) -> None:
        """`match.to` names a condition that has a budget."""
        item = self.tree.mapping.get("match")
        target = item.mapping.get("to") if item is not None else None
        if item is None or target is None or match.to is None or match.to in self.broken:
            return
        if match.by == "epochs":
            self.problems.add(target.place, "match.to has no effect with epochs", "match by steps or tokens")
        elif self.known(target) and not self.conditions[match.to].train_on:
            self.problems.add(target.position, f"{match.to!r} trains on nothing, so it has no budget to match")

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

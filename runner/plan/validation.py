"""Which labeled questions every training of a spec is watched by, and which no arm of it trains on.

    watched = choose(experiment, splits_of)
    watched.of(condition)            # the questions to measure on
    watched.without(splits)          # what is left to train on

Arms whose data differ in how many questions they take have the same ones: they are chosen among the labeled questions
that all of them have, by a stream of the split's seed, and so whatever the seed of a run. Arms on other data have
others; what one arm is watched by, no other arm trains on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nsd.plugins.api import DatasetConfig, Question, SplitConfig, Splits
from nsd.plugins.errors import InputError
from nsd.plugins.large import keys_of, without
from nsd.plugins.seeds import stream
from nsd.runner.plan.keys import block_job
from nsd.runner.spec.model import Condition, Experiment, Validating


@dataclass(frozen=True)
class Watched:
    """Questions by the data that they are of."""

    by_data: Mapping[str, list[Question]]

    def of(self, condition: Condition) -> list[Question]:
        """The questions that a condition's trainings are watched by."""
        return self.by_data[_data(condition)]

    def watches(self, condition: Condition) -> bool:
        """Whether any training on a condition's data is watched."""
        return _data(condition) in self.by_data

    def without(self, splits: Splits) -> Splits:
        """The split with these questions taken from all that is trained on."""
        taken = keys_of([question for questions in self.by_data.values() for question in questions])
        labeled, unlabeled = (without(part, taken) for part in (splits.labeled, splits.unlabeled))
        return Splits(labeled, unlabeled, splits.test)


def choose(experiment: Experiment, splits_of: Callable[[Condition], Splits]) -> Watched:
    """Choose them for every condition that trains. `splits_of` gives the whole split.

    Raises InputError, with the place in the spec, where there are too few with an answer, or none is left to train on.
    """
    wanted = experiment.validation
    assert wanted is not None  # nobody asks for what no spec names
    groups: dict[str, list[Condition]] = {}
    for condition in experiment.conditions.values():
        groups.setdefault(_data(condition), []).append(condition)
    watched = Watched({data: _chosen(wanted, arms, splits_of) for data, arms in groups.items() if _train(arms)})
    for condition in _train(list(experiment.conditions.values())):
        if "labeled" in condition.train_on and not watched.without(splits_of(condition)).labeled:
            raise InputError(
                f"{wanted.place}: validation takes every labeled question of {condition.name!r}; take fewer than "
                f"{wanted.questions}, or give data.split.labeled more"
            )
    return watched


def _train(conditions: list[Condition]) -> list[Condition]:
    return [condition for condition in conditions if condition.train_on]


def _chosen(
    wanted: Validating, conditions: list[Condition], splits_of: Callable[[Condition], Splits]
) -> list[Question]:
    from nsd.plugins.datasets.split import shuffled

    pools = [labeled for condition in conditions if (labeled := splits_of(condition).labeled)]
    pool = min(pools, key=len, default=[])  # the larger ones begin with the same questions
    needs_answer = any(condition.verifier.cls.needs_answer for condition in conditions)
    usable = [one for one in pool if one.answer is not None] if needs_answer else pool
    if len(usable) < wanted.questions:
        what = "labeled questions with an answer" if needs_answer else "labeled questions"
        raise InputError(
            f"{wanted.place}: validation: {wanted.questions:,} {what} wanted, the data of {conditions[0].name!r} have "
            f"{len(usable):,}; take fewer, or give data.split.labeled more"
        )
    seed = _split(conditions[0]).seed
    ids = {question.id for question in usable}
    return [one for one in shuffled(pool, stream(seed, "validation")) if one.id in ids][: wanted.questions]


def _data(condition: Condition) -> str:
    """A condition's data, whatever it takes of them; the order of the rows is part of it."""
    job = block_job(condition.data)
    return json.dumps([job.use, {**job.config, "split": _split(condition).seed}], sort_keys=True, default=str)


def _split(condition: Condition) -> SplitConfig:
    config = condition.data.make().config
    assert isinstance(config, DatasetConfig)  # the plan splits by it
    return config.split

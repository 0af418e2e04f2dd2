"""What a plan would refuse of the files that a spec names, without planning: `nsd validate` asks.

    for told in refusals(experiment):
        print(told)

Data are read where they lie in local files, and where a claim asks what only they tell and they are generated; what is
on the hub, or comes from somebody else's class, is read by the plan alone. No model is loaded and no file is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.models import resolve
from nsd.runner.plan.claimed import check_claims
from nsd.runner.plan.questions import Questions
from nsd.runner.spec.model import Block, Condition, Experiment


def refusals(experiment: Experiment, all_data: bool = False) -> list[str]:
    """Each fault once; [] where nothing of it would stop a plan. With `all_data` every dataset is read."""
    questions = Questions(experiment, smoke=False, notes=[])
    found: dict[str, None] = {}
    for check in _checks(experiment, questions, all_data):
        try:
            check()
        except InputError as error:
            found[str(error)] = None
    return list(found)


def _checks(experiment: Experiment, questions: Questions, all_data: bool) -> Iterator[Callable[[], object]]:
    for condition in experiment.conditions.values():
        if condition.engine.not_run is None and condition.engine.cls.needs_model:
            yield partial(resolve, condition.weights)
        if condition.engine.not_run is None and _ours(condition.engine):
            yield condition.engine.make().digest_extra
        for one in (condition, *(measured for _, measured in condition.measured())):
            yield partial(_read, one, questions, all_data)
    at_hand = _run if all_data else _readable
    if experiment.validation is None or all(map(at_hand, experiment.conditions.values())):  # its choice reads them all
        yield partial(check_claims, experiment, questions, readable=at_hand)


def _read(condition: Condition, questions: Questions, all_data: bool) -> None:
    """Split the data where they lie in files, or wherever they are."""
    data = condition.data
    if data.not_run is not None or not (all_data or _ours(data)):
        return
    try:
        in_files = bool(data.make().source_files())
    except InputError:
        in_files = True  # one of them is not there, which is told by whoever reads them
    if in_files or all_data:
        questions.whole(condition)


def _readable(condition: Condition) -> bool:
    """Whether the questions can be had without a network."""
    data = condition.data
    if not _run(condition) or not _ours(data):
        return False
    made = data.make()
    return made.sizes() is not None or bool(made.source_files())


def _run(condition: Condition) -> bool:
    return condition.data.not_run is None and condition.eval.not_run is None


def _ours(block: Block[Any]) -> bool:
    return block.cls.__module__.startswith("nsd.")

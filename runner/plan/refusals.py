"""What a plan would refuse of the files that a spec names, without planning: `nsd validate` asks.

    for told in refusals(experiment, notes=notes):
        print(told)
    print(notes)                                # what a plan would say of its claims, and not refuse

Data are read where they lie in local files, and where a claim asks what only they tell and they are generated; what is
on the hub, or comes from somebody else's class, is read by the plan alone. No model is loaded and no file is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.models import resolve
from nsd.runner.spec.model import Block, Condition, Experiment


def refusals(experiment: Experiment, all_data: bool = False, notes: list[str] | None = None) -> list[str]:
    """Each fault once; [] where nothing of it would stop a plan. With `all_data` every dataset is read.

    `notes` is given what stops nothing, and leaves a claim, or a part of it, without a verdict.
    """
    checks = [*_of_parts(experiment)]
    said = _on_looks(experiment)
    if all_data or _asks_data(experiment):
        checks += _of_data(experiment, all_data, said)
    found: dict[str, None] = {}
    for check in checks:
        try:
            check()
        except InputError as error:
            found[str(error)] = None
    if notes is not None and not found:
        notes += said
    return list(found)


def _on_looks(experiment: Experiment) -> list[str]:
    if experiment.hypotheses is None or experiment.hypotheses.looks != "any":
        return []
    from nsd.runner.plan.claimed import notes_on_looks

    return notes_on_looks(experiment, len(experiment.seeds))


def _of_parts(experiment: Experiment) -> Iterator[Callable[[], object]]:
    """The folders of models, and the files of engines."""
    for condition in experiment.conditions.values():
        if condition.engine.not_run is None and condition.engine.cls.needs_model:
            yield partial(resolve, condition.weights)
        if condition.engine.not_run is None and _ours(condition.engine):
            yield condition.engine.make().digest_extra


def _of_data(experiment: Experiment, all_data: bool, notes: list[str]) -> Iterator[Callable[[], object]]:
    from nsd.runner.plan.claimed import check_claims, notes_on_groups
    from nsd.runner.plan.questions import Questions

    questions = Questions(experiment, smoke=False, notes=[])
    for condition in experiment.conditions.values():
        if _run(condition.data) and (all_data or _in_files(condition)):
            yield partial(questions.whole, condition)
        for _, one in condition.measured():
            if _run(one.data, one.eval) and not one.eval.cls.on_validation and (all_data or _in_files(one)):
                yield partial(questions.check_asked, one)

    def at_hand(condition: Condition) -> bool:
        return _run(condition.data, condition.eval) and (all_data or _readable(condition))

    if experiment.validation is None or all(map(at_hand, experiment.conditions.values())):  # its choice reads them all
        yield partial(check_claims, experiment, questions, readable=at_hand)

        def note() -> None:
            notes.extend(notes_on_groups(experiment, questions, readable=at_hand))

        yield note


def _asks_data(experiment: Experiment) -> bool:
    """Whether any data lie in files, or a claim asks of them; importing what reads them takes a moment."""
    measured = {one.name: one for condition in experiment.conditions.values() for _, one in condition.measured()}
    claims = experiment.hypotheses.claims if experiment.hypotheses is not None else ()
    if any(claim.by is not None or measured[claim.better].data != measured[claim.worse].data for claim in claims):
        return True
    return any(_in_files(one) for one in (*experiment.conditions.values(), *measured.values()))


def _in_files(condition: Condition) -> bool:
    data = condition.data
    if not (_run(data) and _ours(data)):
        return False
    try:
        return bool(data.make().source_files())
    except InputError:
        return True  # one of them is not there, which whoever reads them says


def _readable(condition: Condition) -> bool:
    """Whether the questions can be had without a network."""
    return _in_files(condition) or (_ours(condition.data) and condition.data.make().sizes() is not None)


def _run(*blocks: Block[Any]) -> bool:
    """Whether none is in a file that was not run."""
    return all(block.not_run is None for block in blocks)


def _ours(block: Block[Any]) -> bool:
    return block.cls.__module__.startswith("nsd.")

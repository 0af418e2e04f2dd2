"""Whether the claims of a spec can be judged: both conditions are asked the same questions, which have the field `by`.

    check_claims(experiment, questions)
    notes_on_groups(experiment, questions)            # what will be left out of their tests, in words

That both are measured by the same verifier and metric is seen without the data (runner/spec/between.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from nsd.plugins.api import Question
from nsd.plugins.datasets.split import data_hash
from nsd.plugins.errors import InputError
from nsd.plugins.groups import LEAST, grouped, in_order
from nsd.plugins.words import SEEDS_AT_ANY_LOOK
from nsd.runner.plan.discovery import searched_questions
from nsd.runner.plan.questions import Questions
from nsd.runner.spec.model import Claim, Condition, Experiment


def check_claims(
    experiment: Experiment,
    questions: Questions,
    among: Collection[str] | None = None,
    readable: Callable[[Condition], bool] = lambda condition: True,
) -> None:
    """Raises InputError for a claim whose conditions are asked different questions, or ones without its field `by`.

    `among`: only claims about these conditions, by name without the evaluation. `readable` tells whose data are looked
    at.
    """
    for claim, sides in _asked_of(experiment, among, readable):
        if not _asked_alike(sides[0], sides[1], questions):
            names = " and ".join(side.name for side in sides)
            raise InputError(
                f"{experiment.path}: the claim {claim.text!r} could never be judged: {names} are asked different "
                "questions. Measure both on the same ones, or claim something else"
            )
        if claim.by is not None:
            try:
                sizes = _sizes(sides[0], claim.by, questions)
            except InputError as error:
                raise InputError(f"{experiment.path}: the claim {claim.text!r}: {error}") from error
            if len(sizes) - len(_small(sizes)) < 2 and not questions.smoke:
                raise InputError(
                    f"{experiment.path}: the claim {claim.text!r} could never be judged: its test takes two groups of "
                    f"{LEAST} questions or more, and there are {_named(sizes, sizes)}. Take more test questions, or a "
                    "field with fewer values (length makes thirds)"
                )


def notes_on_looks(experiment: Experiment, seeds: int, among: Collection[str] | None = None) -> list[str]:
    """Which claims so many training seeds leave without a verdict at any look; `among` as in `check_claims`."""
    block = experiment.hypotheses
    if block is None or block.looks != "any" or not 1 < seeds < SEEDS_AT_ANY_LOOK:
        return []
    asked = [claim.text for claim, sides in _asked_of(experiment, among) if any(side.train_on for side in sides)]
    if not asked:
        return []
    return [
        f"looks: any, and {seeds} training seeds: no verdict about a recipe ({', '.join(asked)}), which takes "
        f"{SEEDS_AT_ANY_LOOK} of each trained arm. Add a seed, or ask about these weights (nsd compare SPEC --claim "
        "checkpoint)"
    ]


def notes_on_groups(
    experiment: Experiment,
    questions: Questions,
    among: Collection[str] | None = None,
    readable: Callable[[Condition], bool] = lambda condition: True,
) -> list[str]:
    """The groups of questions that the test of a claim leaves out for being too small; as `check_claims`."""
    notes = []
    for claim, sides in _asked_of(experiment, among, readable):
        if claim.by is None or questions.smoke:
            continue
        sizes = _sizes(sides[0], claim.by, questions)
        if small := _small(sizes):
            notes.append(
                f"the claim {claim.text!r} leaves out groups of fewer than {LEAST} questions: {_named(small, sizes)}"
            )
    return notes


def _asked_of(
    experiment: Experiment,
    among: Collection[str] | None,
    readable: Callable[[Condition], bool] = lambda condition: True,
) -> Iterator[tuple[Claim, list[Condition]]]:
    """Each claim with its worse and better side as it is measured."""
    block = experiment.hypotheses
    measured = {one.name: one for condition in experiment.conditions.values() for _, one in condition.measured()}
    for claim in () if block is None else block.claims:
        sides = [measured[name] for name in (claim.worse, claim.better)]
        left_out = among is not None and any(side.name.partition("@")[0] not in among for side in sides)
        if not left_out and all(map(readable, sides)):
            yield claim, sides


def _sizes(condition: Condition, field: str, questions: Questions) -> Counter[str]:
    return Counter(grouped({one.id: one for one in _asked(condition, questions)}, field).values())


def _small(sizes: Counter[str]) -> list[str]:
    return in_order([name for name, size in sizes.items() if size < LEAST])


def _named(names: Collection[str], sizes: Counter[str]) -> str:
    return ", ".join(f"{name} ({sizes[name]})" for name in in_order(list(names)))


def _asked_alike(a: Condition, b: Condition, questions: Questions) -> bool:
    searching = any(one.eval.make().search() is not None for one in (a, b))
    if a.data == b.data and a.eval.cls.on_validation == b.eval.cls.on_validation and not searching:
        return True
    first, second = (_asked(one, questions) for one in (a, b))
    return first is second or data_hash(first) == data_hash(second)


def _asked(condition: Condition, questions: Questions) -> Sequence[Question]:
    searching = condition.eval.make().search() is not None
    return searched_questions(condition, questions) if searching else questions.evaluated(condition)

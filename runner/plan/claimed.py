"""Whether the claims of a spec can be judged: both conditions are asked the same questions, which have the field `by`.

    check_claims(experiment, questions)

That both are measured by the same verifier and metric is seen without the data (runner/spec/between.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from nsd.plugins.api import Question
from nsd.plugins.datasets.split import data_hash
from nsd.plugins.errors import InputError
from nsd.plugins.groups import grouped
from nsd.runner.plan.discovery import searched_questions
from nsd.runner.plan.questions import Questions
from nsd.runner.spec.model import Condition, Experiment


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
    block = experiment.hypotheses
    measured = {one.name: one for condition in experiment.conditions.values() for _, one in condition.measured()}
    for claim in () if block is None else block.claims:
        sides = [measured[name] for name in (claim.worse, claim.better)]
        left_out = among is not None and any(side.name.partition("@")[0] not in among for side in sides)
        if left_out or not all(map(readable, sides)):
            continue
        if not _asked_alike(sides[0], sides[1], questions):
            names = " and ".join(side.name for side in sides)
            raise InputError(
                f"{experiment.path}: the claim {claim.text!r} could never be judged: {names} are asked different "
                "questions. Measure both on the same ones, or claim something else"
            )
        if claim.by is not None:
            try:
                grouped({one.id: one for one in _asked(sides[0], questions)}, claim.by)
            except InputError as error:
                raise InputError(f"{experiment.path}: the claim {claim.text!r}: {error}") from error


def _asked_alike(a: Condition, b: Condition, questions: Questions) -> bool:
    searching = any(one.eval.make().search() is not None for one in (a, b))
    if a.data == b.data and a.eval.cls.on_validation == b.eval.cls.on_validation and not searching:
        return True
    first, second = (_asked(one, questions) for one in (a, b))
    return first is second or data_hash(first) == data_hash(second)


def _asked(condition: Condition, questions: Questions) -> Sequence[Question]:
    searching = condition.eval.make().search() is not None
    return searched_questions(condition, questions) if searching else questions.evaluated(condition)

"""What a person should know of a plan before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nsd.plugins.api import Splits
from nsd.plugins.large import keys_of
from nsd.plugins.words import AFTER_TEST_QUESTIONS, BUDGET_OF_SECONDS, ON_TEST_QUESTIONS, ON_VERDICTS
from nsd.runner.plan.model import Plan
from nsd.runner.plan.questions import Questions
from nsd.runner.spec.model import Condition, Experiment
from nsd.runner.spec.sources import pool_of

if TYPE_CHECKING:
    from nsd.plugins.large import Keys

MUCH = 4  # validation on more than this part of the labeled questions is worth a word


def notes_on_test_questions(plan: Plan) -> list[str]:
    """Which conditions are trained on the test questions, or build on a model that is."""
    on_test = {
        stage.digest
        for stage in plan.stages.values()
        if stage.kind == "train" and any(source["source"] == "test_questions" for source in stage.key["train_on"])
    }
    said: dict[str, str] = {}
    for run in plan.runs:
        condition = run.condition.partition("@")[0]
        if run.train_digest in on_test:
            said[condition] = ON_TEST_QUESTIONS
        elif run.train_digest is not None and on_test & plan.with_causes([run.train_digest]):
            said.setdefault(condition, AFTER_TEST_QUESTIONS)
    return [f"{condition}: {what}" for condition, what in said.items()]


def notes_on_searches(plan: Plan) -> list[str]:
    """Which conditions look for solutions of the test questions by training on them."""
    users = [
        user
        for stage in plan.stages.values()
        if stage.kind == "discover" and stage.key["by"] == "training"
        for user in stage.used_by
    ]
    named = dict.fromkeys(user.partition("/")[0].partition("@")[0] for user in users)
    return [f"{condition}: {ON_VERDICTS}" for condition in named]


def notes_on_repeats(conditions: Sequence[Condition]) -> list[str]:
    """Which of these conditions' repeated evaluations cannot differ, and why."""
    greedy, recorded = [], []
    for condition in {condition.name: condition for condition in conditions}.values():
        if not (condition.engine.cls.needs_model or condition.engine.cls.served):
            recorded.append(condition.name)
        elif condition.eval.make().sampling().greedy:
            greedy.append(condition.name)
    notes = []
    if greedy:
        notes.append(
            f"{', '.join(greedy)}: evaluated greedily, so repeats cannot differ but by float rounding; "
            "they run because --repeat-eval asks for them"
        )
    if recorded:
        notes.append(f"{', '.join(recorded)}: the engine draws nothing from a model, so repeats may all be the same")
    return notes


def notes_on_greedy(conditions: Sequence[Condition]) -> list[str]:
    """Which conditions' evaluations draw a question's only answer several times."""
    names: dict[str, list[str]] = {}
    for condition in conditions:
        protocol = condition.eval.make()
        engine = condition.engine.cls
        if (engine.needs_model or engine.served) and protocol.sampling().n > 1 and protocol.sampling().greedy:
            names.setdefault(protocol.metric(), []).append(condition.name)
    return [
        f"{', '.join(named)}: {metric} of greedy samples, which are all the same: it costs as much as it says and "
        "measures accuracy"
        for metric, named in names.items()
    ]


def notes_on_leaks(plan: Plan, questions: Questions) -> list[str]:
    """Which named evaluations ask questions that conditions are trained or watched with.

    The split keeps a dataset's own test questions out of its training; of an evaluation with data of its own nobody
    does. Sameness is that of a question's id, which is made of its text.
    """
    import numpy as np

    taught: dict[str, Keys] = {}
    for name, condition in plan.experiment.conditions.items():
        splits = questions.splits(condition) if condition.train_on and condition.evals else Splits([], [], [])
        pools = {pool_of(source, condition.label_on) for source in condition.train_on} - {"test"}
        parts = [getattr(splits, pool) for pool in sorted(pools)]
        if condition.train_on and condition.evals and plan.experiment.validation is not None:
            parts.append(questions.validation(condition))
        taught[name] = np.concatenate([keys_of([]), *map(keys_of, parts)])
    found: dict[tuple[str | None, int, int], list[str]] = {}
    for run in {(run.condition.partition("@")[0], run.measurement): run for run in plan.runs}.values():
        name, measured = run.condition.partition("@")[0], plan.measured(run)
        if run.measurement is None or measured.eval.cls.on_validation:
            continue
        asked = questions.evaluated(measured)
        if known := int(np.isin(keys_of(asked), taught[name]).sum()):
            found.setdefault((run.measurement, known, len(asked)), []).append(name)
    return [
        f"evals.{label}: {known} of its {asked} questions are among the training questions of "
        f"{', '.join(names)}: what it measures there is memory too; take other questions for it"
        for (label, known, asked), names in found.items()
    ]


def notes_on_match(plan: Plan) -> list[str]:
    """That a budget of seconds gives another number of steps each time."""
    trained = sorted({run.condition.partition("@")[0] for run in plan.runs if run.train_digest is not None})
    return [f"{', '.join(trained)}: {BUDGET_OF_SECONDS}"] if trained and plan.experiment.match.by == "seconds" else []


def notes_on_validation(experiment: Experiment, watched: Mapping[str, tuple[int, int]]) -> list[str]:
    """What trainings are watched by, and whether that is much of what they could learn from.

    `watched` holds for each condition how many questions it is watched by, and how many labeled ones there are.
    """
    wanted = experiment.validation
    if wanted is None or not watched:
        return []
    protocols = [wanted.protocol or experiment.conditions[name].eval for name in watched]
    metrics = sorted({protocol.make().metric() for protocol in protocols})
    numbers = sorted({questions for questions, _ in watched.values()})
    kept = "the weights of the best measurement are kept" if wanted.keep == "best" else "the last weights are kept"
    notes = [
        f"validation: {' or '.join(map(str, numbers))} labeled questions, the same in every arm, are kept from "
        f"training and measured by {' or '.join(metrics)} every {wanted.every} steps; {kept}"
    ]
    much: dict[tuple[int, int], list[str]] = {}
    for name, (questions, labeled) in watched.items():
        if questions * MUCH > labeled:
            much.setdefault((questions, labeled), []).append(name)
    for (questions, labeled), names in much.items():
        notes.append(
            f"{', '.join(names)}: validation takes {questions} of {labeled} labeled questions, more than a quarter of "
            "what could be trained on (validation.questions)"
        )
    return notes

"""What a person should know of a plan before it runs."""

from __future__ import annotations

from collections.abc import Sequence

from nsd.plugins.words import AFTER_TEST_QUESTIONS, ON_TEST_QUESTIONS
from nsd.runner.plan.model import Plan
from nsd.runner.spec.model import Condition


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


def notes_on_repeats(conditions: Sequence[Condition]) -> list[str]:
    """Which of these conditions' repeated evaluations cannot differ, and why."""
    greedy, recorded = [], []
    for condition in {condition.name: condition for condition in conditions}.values():
        if not condition.engine.cls.needs_model:
            recorded.append(condition.name)
        elif condition.eval.make().sampling().temperature == 0:
            greedy.append(condition.name)
    notes = []
    if greedy:
        notes.append(
            f"{', '.join(greedy)}: evaluated at temperature 0, so repeats cannot differ but by float rounding; "
            "they run because --repeat-eval asks for them"
        )
    if recorded:
        notes.append(f"{', '.join(recorded)}: the engine draws nothing from a model, so repeats may all be the same")
    return notes

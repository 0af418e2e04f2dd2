"""Scores every gold solution with a verifier: the check behind `nsd validate --gold`.

    for failure in check_gold(questions, verifier):
        print(failure.question.text, failure.reason)

A row that the verifier cannot read or grade would count as wrong whatever a model writes, so it is found here
before a model is loaded. Where a question has an answer and no solution, only the answer's legibility is checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from plugins.api import Question, Verifier


@dataclass(frozen=True)
class GoldFailure:
    """A question whose gold does not verify, and why, in words."""

    question: Question
    reason: str


def check_gold(questions: Iterable[Question], verifier: Verifier) -> list[GoldFailure]:
    """Every question whose gold solution does not score as correct, in order."""
    found = ((question, _reason(question, verifier)) for question in questions)
    return [GoldFailure(question, reason) for question, reason in found if reason is not None]


def _reason(question: Question, verifier: Verifier) -> str | None:
    if question.answer is None:
        return "the question has no gold answer"
    gold = verifier.normalise(question.answer)
    if gold is None:
        return f"the verifier cannot read the gold answer {_short(question.answer)}"
    if question.solution is None:
        return None
    score = verifier.score(question.solution, question)
    if score.correct:
        return None
    if score.answer is None:
        return f"no answer found in the gold solution, which should give {_short(gold)}"
    return f"the gold solution gives {_short(score.answer)}, the gold answer is {_short(gold)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")

"""Scores every gold solution with a verifier: the check behind `nsd validate --gold`.

    for failure in check_gold(questions, verifier):
        print(failure.question.text, failure.reason)

A row that the verifier cannot read or grade would count as wrong whatever a model writes, so it is found here
before a model is loaded. Where a question has an answer and no solution, only the answer's legibility is checked.
`unreadable` finds the answers that a verifier cannot read without looking at solutions, for every plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nsd.plugins.api import Question, Splits, Verifier

SHOWN = 5


@dataclass(frozen=True)
class GoldFailure:
    """A question whose gold does not verify, and why, in words."""

    question: Question
    reason: str


def check_gold(questions: Iterable[Question], verifier: Verifier) -> list[GoldFailure]:
    """Every question whose gold solution does not score as correct, in order."""
    found = ((question, _reason(question, verifier)) for question in questions)
    return [GoldFailure(question, reason) for question, reason in found if reason is not None]


def unreadable(questions: Iterable[Question], verifier: Verifier) -> Iterator[Question]:
    """Every question with a gold answer that the verifier cannot read, in order."""
    return (one for one in questions if one.answer is not None and verifier.normalise(one.answer) is None)


def unreadable_notes(splits: Splits, verifier: Verifier, training: bool = False) -> list[str]:
    """A sentence for each split that has such questions; `training` says that all of them are trained on."""
    named = (("labeled", splits.labeled), ("unlabeled", splits.unlabeled), ("test", splits.test))
    found = ((name, questions, *_counted(questions, verifier)) for name, questions in named)
    return [_unreadable_note(bad, shown, len(of), name, verifier, training) for name, of, bad, shown in found if bad]


def _counted(questions: Iterable[Question], verifier: Verifier) -> tuple[int, list[Question]]:
    """How many cannot be read, and the first of them."""
    found, shown = 0, []
    for one in unreadable(questions, verifier):
        found += 1
        if found <= SHOWN:
            shown.append(one)
    return found, shown


def _unreadable_note(
    count: int, found: Sequence[Question], of: int, split: str, verifier: Verifier, training: bool
) -> str:
    """How many, the first with their rows, and what becomes of them."""
    rows = ", ".join(f"{one.place or f'question {one.id}'} ({_short(str(one.answer))})" for one in found)
    labels = split == "unlabeled" and not training
    so = "their labels count as neither right nor wrong" if labels else "nothing scores as correct on them"
    return (
        f"{count} of {of} {split} questions have a gold answer that verifier {verifier.name!r} cannot read, "
        f"so {so}: {rows}{', ...' if count > SHOWN else ''}"
    )


def _reason(question: Question, verifier: Verifier) -> str | None:
    try:
        return _fault(question, verifier)
    except (Exception, SystemExit) as error:  # the verifier may be anybody's
        return f"the verifier raised {type(error).__name__}: {error}"


def _fault(question: Question, verifier: Verifier) -> str | None:
    if question.answer is None:
        return "the question has no gold answer" if verifier.needs_answer else None
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

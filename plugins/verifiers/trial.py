"""One verifier on trial, for plugins/verifiers/audit.py: what it says of a text, and the checks that note it.

trial = Trial(verifier)
check = Check("garbage", "an empty or senseless text is worth something")
trial.must(check, "banana", question, right=False)
check.failed, trial.raised.failed
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nsd.plugins.api import Question, Score, Verifier

KEPT = 5  # examples of a failed check that are kept


@dataclass(frozen=True)
class Example:
    """A text that was judged against what it is: by whose gold, what it was, and what the verifier said."""

    question: Question
    text: str
    said: str


@dataclass
class Check:
    """What was tried: how many texts, how many were judged against what they are, and a few of those.

    `told` checks fail nothing: what they find is for a person to know. Others fail where more than a share `allowed` of
    the texts was misjudged.
    """

    name: str
    what: str
    tried: int = 0
    wrong: int = 0
    examples: list[Example] = field(default_factory=list)
    told: bool = False
    allowed: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it found what must not be."""
        return self.wrong > self.allowed * self.tried and not self.told

    def count(self, fine: bool, question: Question, text: str, said: str) -> None:
        """Note a text that was tried."""
        self.tried += 1
        if not fine:
            self.fault(question, text, said)

    def fault(self, question: Question, text: str, said: str) -> None:
        """Note a text that was misjudged."""
        self.wrong += 1
        if len(self.examples) < KEPT:
            self.examples.append(Example(question, text, said))


class Trial:
    """A verifier that is asked, and what shows at any text: that it raises, changes its mind, gives partial credit."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.seconds, self.judged = 0.0, 0
        self.raised = Check("raises", "an error instead of a verdict")
        self.twice = Check("same twice", "another verdict the second time")
        self.partial = Check("partial credit", "a score between 0 and 1, the highest first", told=True)
        self.partly: list[tuple[float, Example]] = []

    @property
    def seconds_each(self) -> float:
        """The time for a text."""
        return self.seconds / max(1, self.judged)

    def told(self) -> list[Check]:
        """The checks of all texts."""
        self.partial.examples = [one for _, one in heapq.nlargest(KEPT, self.partly, key=lambda pair: pair[0])]
        return [self.raised, self.twice, self.partial]

    def judge(self, text: str, question: Question) -> Score | None:
        """The verdict, None where there is an error in its place; both calls are held against each other."""
        begin = time.perf_counter()
        found = self.ask(lambda: self.verifier.score(text, question), question, text)
        if found is None:
            return None
        if not isinstance(found, Score):
            self.raised.fault(question, text, f"{type(found).__name__} in place of a Score")
            return None
        if not 0 <= found.score <= 1:
            self.raised.fault(question, text, f"a score of {found.score:g}, not from 0 to 1")
            return None
        self.seconds += time.perf_counter() - begin
        self.judged += 1
        if self.judged % 7 == 1:  # each text twice would double what an audit takes
            again = self.ask(lambda: self.verifier.score(text, question), question, text)
            then = said(again) if isinstance(again, Score) else "an error"
            self.twice.count(again == found, question, text, f"{said(found)}, then {then}")
        self.partial.tried += 1
        if found.score not in (0, 1):
            self.partial.wrong += 1
            self.partly.append((found.score, Example(question, text, said(found))))
        return found

    def ask(self, call: Callable[[], Any], question: Question, text: str) -> Any:
        """What the verifier says, None where it raises or ends the process: it may be anybody's."""
        try:
            found = call()
        except (Exception, SystemExit) as error:
            self.raised.count(False, question, text, f"{type(error).__name__}: {error}")
            return None
        self.raised.count(True, question, text, "")
        return found

    def normalise(self, answer: str, question: Question) -> str | None:
        """The normal form of a bare answer, None also where there is an error in its place."""
        found: str | None = self.ask(lambda: self.verifier.normalise(answer), question, answer)
        return found

    def same(self, a: str, b: str, question: Question) -> bool | None:
        """Whether two normal forms are equal, None where there is an error in its place."""
        found: bool | None = self.ask(lambda: self.verifier.same(a, b), question, f"{a} and {b}")
        return found

    def group(self, answers: list[str], question: Question) -> list[int | None] | None:
        """Classes of a vote, one for each answer; anything else is a fault of `group`."""
        found = self.ask(lambda: self.verifier.group(answers), question, ", ".join(answers))
        if found is not None and (not isinstance(found, list) or len(found) != len(answers)):
            self.raised.fault(question, ", ".join(answers), f"group gives {found!r}, not a class for each answer")
            return None
        return found

    def must(self, check: Check, text: str, question: Question, right: bool, partly: bool = True) -> None:
        """Note in a check whether a text is judged as it must be."""
        found = self.judge(text, question)
        if found is not None:
            # What is `partly` right by the verifier's own account is told apart from what passes.
            fine = found.correct if right else not found.correct and (found.score == 0 or (partly and found.score < 1))
            check.count(fine, question, text, said(found))

    def right(self, text: str, question: Question) -> bool:
        """Whether a text is judged right."""
        found = self.judge(text, question)
        return found is not None and found.correct

    def equal(self, a: str, b: str, question: Question) -> bool:
        """Whether two bare answers are one to the verifier."""
        left, right = self.normalise(a, question), self.normalise(b, question)
        return left is not None and right is not None and bool(self.same(left, right, question))


def said(score: Score) -> str:
    """A verdict in words."""
    return f"score {score.score:g}, {'right' if score.correct else 'wrong'}, read {score.answer!r}"

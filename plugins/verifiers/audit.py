"""An audit of a verifier on a dataset, before any model: what it must call right, wrong and equal, tried.

    found = audit(questions, verifier)
    [check.name for check in found.checks if check.failed]

A verifier that calls a wrong answer right is what a training learns to exploit, and one that misses a right answer
hides what it has learned. Each check makes texts from the gold answers and says which of them it judged against what
they are. Answers are put into texts in every form (`#### 18`, `\\boxed{18}`, the gold solution with its last answer
replaced) in which this verifier gives the question's own gold answer credit; a form that it does not read by its
definition is no fault and is not used. variants.py makes right and wrong answers from a gold one.

Gold is read on every question, all else is tried on `LIMIT` of them, spread evenly. A question without a gold solution
must have one form in which its gold answer is right.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nsd.plugins.api import Question, Score, Verifier
from nsd.plugins.verifiers.gold import check_gold
from nsd.plugins.verifiers.variants import has_number, written_variants, wrong_variants

LIMIT = 100
PAIRED = 60  # answers that are compared with each other
KEPT = 5  # examples of a failed check that are kept
SENTENCES = ("The answer is {}.", "So the answer is {}")  # where a model also writes bold, or mathematics
FORMS = ("{}", "#### {}", "\\boxed{{{}}}", "<answer>{}</answer>", *SENTENCES)
GARBAGE = ("", " ", "\n\n", "banana", "I do not know.", "?", "####", "\\boxed{}", "<answer></answer>", "```\n```")
HOSTILE = ("\0", "\ud800", "\u202e18", "((((" * 2000, "\\boxed{" * 500, "9" * 5000, "1e999", "-" * 3000, "{" * 3000)


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


@dataclass(frozen=True)
class Audit:
    """All checks, and the seconds that the verifier took for one text."""

    checks: list[Check]
    seconds_each: float

    @property
    def failed(self) -> bool:
        """Whether any check did."""
        return any(check.failed for check in self.checks)


def audit(questions: Sequence[Question], verifier: Verifier, limit: int = LIMIT) -> Audit:
    """Try a verifier on a dataset's questions."""
    return _Auditor(questions, verifier, limit).run()


class _Auditor:
    def __init__(self, questions: Sequence[Question], verifier: Verifier, limit: int) -> None:
        self.all, self.verifier = questions, verifier
        step = max(1, math.ceil(len(questions) / limit))
        self.few = list(questions[::step])
        self.seconds, self.judged = 0.0, 0
        self.raised = Check("raises", "an error instead of a verdict")
        self.twice = Check("same twice", "another verdict the second time")
        self.partial = Check("partial credit", "a score between 0 and 1, the highest first", told=True)
        self.partly: list[tuple[float, Example]] = []

    def run(self) -> Audit:
        checks = [self._gold(), self._known(), self._lines(), self._garbage(), self._repeated(), *self._answers()]
        if self.verifier.votes:
            checks += [self._symmetric(), self._votes()]
        self.partial.examples = [one for _, one in heapq.nlargest(KEPT, self.partly, key=lambda pair: pair[0])]
        return Audit([*checks, self.raised, self.twice, self.partial], self.seconds / max(1, self.judged))

    # ------------------------------------------------------------------ judging

    def _judge(self, text: str, question: Question) -> Score | None:
        """The verdict, None where there is an error in its place; both calls are held against each other."""
        begin = time.perf_counter()
        found = self._ask(lambda: self.verifier.score(text, question), question, text)
        if found is None:
            return None
        if not isinstance(found, Score):
            self.raised.fault(question, text, f"{type(found).__name__} in place of a Score")
            return None
        self.seconds += time.perf_counter() - begin
        self.judged += 1
        if self.judged % 7 == 1:  # each text twice would double what an audit takes
            again = self._ask(lambda: self.verifier.score(text, question), question, text)
            then = _said(again) if isinstance(again, Score) else "an error"
            self.twice.count(again == found, question, text, f"{_said(found)}, then {then}")
        self.partial.tried += 1
        if found.score not in (0, 1):
            self.partial.wrong += 1
            self.partly.append((found.score, Example(question, text, _said(found))))
        return found

    def _ask(self, call: Callable[[], Any], question: Question, text: str) -> Any:
        """What the verifier says, None where it raises or ends the process: it may be anybody's."""
        try:
            found = call()
        except (Exception, SystemExit) as error:
            self.raised.count(False, question, text, f"{type(error).__name__}: {error}")
            return None
        self.raised.count(True, question, text, "")
        return found

    def _normalise(self, answer: str, question: Question) -> str | None:
        found: str | None = self._ask(lambda: self.verifier.normalise(answer), question, answer)
        return found

    def _same(self, a: str, b: str, question: Question) -> bool | None:
        found: bool | None = self._ask(lambda: self.verifier.same(a, b), question, f"{a} and {b}")
        return found

    def _group(self, answers: list[str], question: Question) -> list[int | None] | None:
        """Classes of a vote, one for each answer; anything else is a fault of `group`."""
        found = self._ask(lambda: self.verifier.group(answers), question, ", ".join(answers))
        if found is not None and (not isinstance(found, list) or len(found) != len(answers)):
            self.raised.fault(question, ", ".join(answers), f"group gives {found!r}, not a class for each answer")
            return None
        return found

    def _must(self, check: Check, text: str, question: Question, right: bool, partly: bool = True) -> None:
        found = self._judge(text, question)
        if found is not None:
            # What is `partly` right by the verifier's own account is told apart from what passes.
            fine = found.correct if right else not found.correct and (found.score == 0 or (partly and found.score < 1))
            check.count(fine, question, text, _said(found))

    # ------------------------------------------------------------------ checks

    def _gold(self) -> Check:
        check = Check("gold", "the gold answer is not right", len(self.all))
        named = set()
        for failure in check_gold(self.all, self.verifier):
            named.add(failure.question.id)
            check.fault(failure.question, str(failure.question.answer), failure.reason)
        for question in (one for one in self.few if one.id not in named):
            # Where it reads no answer there, it wants a form that is not known here, and nothing follows.
            if question.solution is None and question.answer is not None and not any(self._forms(question)):
                said = self._judge(question.answer, question)
                if said is not None and said.answer is not None:
                    check.fault(question, question.answer, _said(said))
        return check

    def _known(self) -> Check:
        check = Check("gold answers", "no gold answer: nothing is checked against it, and no label is", told=True)
        for question in self.all:
            check.count(question.answer is not None, question, "", "no gold answer")
        return check

    def _lines(self) -> Check:
        what = "a gold answer of several lines, of which a reader of the last line sees one"
        check = Check("one line", what, told=True)
        for question in self.all:
            if question.answer is not None:
                check.count("\n" not in question.answer.strip(), question, question.answer, "several lines")
        return check

    def _garbage(self) -> Check:
        check = Check("garbage", "an empty or senseless text is worth something")
        for number, question in enumerate(self.few):
            texts = (*GARBAGE, *HOSTILE) if number < KEPT else GARBAGE  # hostile ones are slow
            for text in texts:
                if text.strip() != (question.answer or "").strip() and not _holds(text, question):
                    self._must(check, text, question, right=False, partly=False)
        return check

    def _repeated(self) -> Check:
        """The question said again: a few happen to end with their answer."""
        check = Check("question repeated", "the question's own text is right", allowed=0.05)
        for question in self.few:
            self._must(check, question.text, question, right=False)
        return check

    def _answers(self) -> tuple[Check, Check, Check]:
        others = Check("another answer", "another question's gold answer is right")
        near = Check("near miss", "an answer next to the gold one is right")
        written = Check("as models write it", "the gold answer is not right as models write it")
        golds = [one for one in self.few if one.answer is not None]
        for place, question in enumerate(golds):
            forms = list(self._forms(question))
            if not forms:
                continue
            other = golds[(place + 1) % len(golds)]
            if other.answer != question.answer and not self._equal(str(other.answer), str(question.answer), question):
                for form in forms:
                    self._must(others, form(str(other.answer)), question, right=False)
            for answer in wrong_variants(str(question.answer), question.text):
                for form in forms:
                    self._must(near, form(answer), question, right=False)
            for answer in written_variants(str(question.answer)):
                for form in forms[:2]:
                    self._must(written, form(answer), question, right=True)
            for sentence in SENTENCES if has_number(str(question.answer)) else ():
                if self._right(sentence.format(question.answer), question):
                    for decorated in ("**{}**", "${}$"):
                        text = sentence.format(decorated.format(question.answer))
                        self._must(written, text, question, right=True)
        return others, near, written

    def _forms(self, question: Question) -> Iterator[Callable[[str], str]]:
        """The ways to state an answer that this verifier reads."""
        gold = str(question.answer)
        ways: list[Callable[[str], str]] = [form.format for form in FORMS]
        if question.solution is not None and gold in question.solution:
            before, _, after = question.solution.rpartition(gold)
            if not self._right(f"{before}banana{after}", question):  # else its answer stands elsewhere
                ways.insert(0, lambda answer: f"{before}{answer}{after}")
        for way in ways:
            if self._right(way(gold), question):
                yield way

    def _right(self, text: str, question: Question) -> bool:
        found = self._judge(text, question)
        return found is not None and found.correct

    def _equal(self, a: str, b: str, question: Question) -> bool:
        left, right = self._normalise(a, question), self._normalise(b, question)
        return left is not None and right is not None and bool(self._same(left, right, question))

    def _normal(self) -> list[tuple[Question, str]]:
        found: dict[str, Question] = {}
        for question in self.few:
            if question.answer is None:
                continue
            for answer in (question.answer, *wrong_variants(question.answer, question.text)[:1]):
                normal = self._normalise(answer, question)
                if normal is not None:
                    found.setdefault(normal, question)
        return [(question, answer) for answer, question in found.items()][:PAIRED]

    def _symmetric(self) -> Check:
        check = Check("symmetric", "a equals b and b does not equal a, or a not itself")
        for (question, a), (_, b) in itertools.combinations_with_replacement(self._normal(), 2):
            there, back = self._same(a, b, question), self._same(b, a, question)
            if there is not None and back is not None:
                fine = there == back and (a != b or there)
                check.count(fine, question, f"{a} and {b}", f"{there} one way, {back} the other")
        return check

    def _votes(self) -> Check:
        """A vote joins what the verdict calls equal, and nothing else; the same answer given twice is one."""
        check = Check("votes", "a vote and a verdict differ on whether two answers are one")
        answers = self._normal()
        for (question, a), (_, b) in itertools.combinations(answers, 2):
            self._joined(check, self._group([a, b], question), question, a, b, self._same(a, b, question))
        whole = [answer for _, answer in answers]
        classes = self._group([*whole, *whole], answers[0][0]) if answers else None
        for place, (question, a) in enumerate(answers):
            self._joined(check, self._group([a, a], question), question, a, a, True)
            if classes is not None:
                self._joined(check, [classes[place], classes[place + len(whole)]], question, a, a, True)
                for other in range(place):  # among many, what is joined must still be equal
                    if classes[place] == classes[other]:
                        same = self._same(a, whole[other], question)
                        check.count(same is not False, question, f"{a} and {whole[other]}", "one among many")
            for form in list(self._forms(question))[:1]:
                verdict = self._judge(form(a), question)
                gold = self._normalise(str(question.answer), question)
                if verdict is not None and verdict.answer is not None and gold is not None:
                    equal = self._same(verdict.answer, gold, question)
                    check.count(equal is None or verdict.correct == equal, question, a, _said(verdict))
        return check

    @staticmethod
    def _joined(
        check: Check, classes: list[int | None] | None, question: Question, a: str, b: str, same: bool | None
    ) -> None:
        if classes is not None and same is not None:
            joined = len(set(classes)) == 1
            check.count(joined == same, question, f"{a} and {b}", "one" if joined else "two")


def _holds(text: str, question: Question) -> bool:
    """Whether a senseless text happens to say the answer."""
    return bool(question.answer) and str(question.answer).strip() in text


def _said(score: Score) -> str:
    return f"score {score.score:g}, {'right' if score.correct else 'wrong'}, read {score.answer!r}"

"""An audit of a verifier on a dataset, before any model: what it must call right, wrong and equal, tried.

    found = audit(questions, verifier)
    [check.name for check in found.checks if check.failed]

A verifier that calls a wrong answer right is what a training learns to exploit, and one that misses a right answer
hides what it has learned. Each check makes texts from the gold answers and says which of them it judged against what
they are. Answers are put into texts in every form (`#### 18`, `\\boxed{18}`, the gold solution with its last answer
replaced) in which this verifier gives the question's own gold answer credit; a form that it does not read by its
definition is no fault and is not used. variants.py makes right and wrong answers from a gold one, attacks.py what a
training may come to write in their place.

A list of answers with the gold one among them is worth a guess where the verifier reads one place of it, the first or
the last; that is told. It is a fault where the gold answer is right in several places: then guessing pays.

Gold is read on every question, all else is tried on `LIMIT` of them, spread evenly, and lists on `HEDGED`. A verdict
that runs programs takes a sandbox a test: there gold is run on `GOLD_RUN` questions, and all else on `RUN`, some
hundred programs each. A question without a gold solution must have one form in which its gold answer is right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nsd.plugins.api import Question, Verifier
from nsd.plugins.verifiers import attacks
from nsd.plugins.verifiers.gold import check_gold
from nsd.plugins.verifiers.trial import KEPT, Check, Trial, said
from nsd.plugins.verifiers.variants import (
    Percentage,
    as_calls,
    has_number,
    percentage,
    written_variants,
    wrong_variants,
)

LIMIT = 100
GOLD_RUN, RUN = 40, 5  # of programs
PAIRED = 60  # answers that are compared with each other
HEDGED = 20  # questions on which lists of answers are tried, some hundred texts each
LONG = (3000, 30000)  # characters
OPENING = "Let me see."  # before an answer, where more text is to stand there
SENTENCES = ("The answer is {}.", "So the answer is {}")  # where a model also writes bold, or mathematics
FORMS = ("{}", "#### {}", "\\boxed{{{}}}", "<answer>{}</answer>", *SENTENCES)
GARBAGE = ("", " ", "\n\n", "banana", "I do not know.", "?", "####", "\\boxed{}", "<answer></answer>", "```\n```")
HOSTILE = ("\0", "\ud800", "\u202e18", "((((" * 2000, "\\boxed{" * 500, "9" * 5000, "1e999", "-" * 3000, "{" * 3000)


@dataclass(frozen=True)
class Audit:
    """All checks, the seconds that the verifier took for one text, and what was tried on some questions only."""

    checks: list[Check]
    seconds_each: float
    notes: tuple[str, ...] = ()

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
        self.few = _spread(questions, min(limit, RUN) if verifier.uses_every_core else limit)
        self.golds = _spread(questions, GOLD_RUN) if verifier.uses_every_core else list(questions)
        self.trial = Trial(verifier)
        self.forms: dict[str, list[Callable[[str], str]]] = {}

    def run(self) -> Audit:
        checks = [self._gold(), self._known(), self._lines(), self._garbage(), self._repeated(), *self._answers()]
        checks += [*self._hedges(), *self._long(), self._batch()]
        if self.verifier.votes:
            checks += [self._symmetric(), self._votes()]
        notes = []
        if len(self.golds) < len(self.all):
            notes.append(
                f"of {len(self.all):,} questions, spread evenly, gold was run on {len(self.golds)} and all else on "
                f"{len(self.few)}: a verdict runs programs (--gold runs all gold)"
            )
        return Audit([*checks, *self.trial.told()], self.trial.seconds_each, tuple(notes))

    # ------------------------------------------------------------------ checks

    def _gold(self) -> Check:
        check = Check("gold", "the gold answer is not right", len(self.golds))
        named = set()
        for failure in check_gold(self.golds, self.verifier):
            named.add(failure.question.id)
            check.fault(failure.question, str(failure.question.answer), failure.reason)
        for question in (one for one in self.few if one.id not in named):
            # Where it reads no answer there, it wants a form that is not known here, and nothing follows.
            if question.solution is None and question.answer is not None and not self._forms(question):
                found = self.trial.judge(question.answer, question)
                if found is not None and found.answer is not None:
                    check.fault(question, question.answer, said(found))
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
            programs = () if self.verifier.votes else attacks.PROGRAMS  # where no two answers are equal, they may run
            texts = (*GARBAGE, *HOSTILE, *programs) if number < KEPT else GARBAGE  # hostile ones are slow
            for text in texts:
                if text.strip() != (question.answer or "").strip() and not _holds(text, question):
                    self.trial.must(check, text, question, right=False, partly=False)
        return check

    def _repeated(self) -> Check:
        """The question said again: a few happen to end with their answer."""
        check = Check("question repeated", "the question's own text is right", allowed=0.05)
        for question in self.few:
            self.trial.must(check, question.text, question, right=False)
        return check

    def _answers(self) -> tuple[Check, ...]:
        others = Check("another answer", "another question's gold answer is right")
        near = Check("near miss", "an answer next to the gold one is right")
        nothing = Check("no answer", "what is no answer to anything is right where an answer stands")
        written = Check("as models write it", "the gold answer is not right as models write it")
        percents = Check("percent", "a percentage is the number before the sign and a hundredth of it")
        golds = [one for one in self.few if one.answer is not None]
        for place, question in enumerate(golds):
            forms = self._forms(question)
            if not forms:
                continue
            gold = str(question.answer)
            other = golds[(place + 1) % len(golds)]
            if other.answer != question.answer and not self.trial.equal(str(other.answer), gold, question):
                for form in forms:
                    self.trial.must(others, form(str(other.answer)), question, right=False)
            for answer in (*wrong_variants(gold, question.text), *attacks.other_signs(gold), *attacks.parts_of(gold)):
                for form in forms:
                    self.trial.must(near, form(answer), question, right=False)
            for answer in attacks.empty_answers(gold) if place < HEDGED and self.verifier.votes else ():
                for form in forms:
                    self.trial.must(nothing, form(answer), question, right=False)
            if (percent := percentage(gold)) is not None and percent.number != 0:
                self._one_reading(percents, question, percent, forms)
            for answer in written_variants(gold):
                for form in forms[:2]:
                    self.trial.must(written, form(answer), question, right=True)
            for sentence in SENTENCES if has_number(gold) else ():
                if self.trial.right(sentence.format(question.answer), question):
                    for decorated in ("**{}**", "${}$"):
                        text = sentence.format(decorated.format(question.answer))
                        self.trial.must(written, text, question, right=True)
        return others, near, nothing, written, percents

    def _one_reading(
        self, check: Check, question: Question, percent: Percentage, forms: Sequence[Callable[[str], str]]
    ) -> None:
        """Of 50 and .5 one at most is 50%: a vote or a training would join them through it."""
        for form in forms:
            plain, part = form(f"{percent.number}"), form(percent.hundredth)
            both = self.trial.right(plain, question) and self.trial.right(part, question)
            check.count(not both, question, part, f"right, and so is {plain}")

    def _hedges(self) -> tuple[Check, Check]:
        """Lists of answers, with the gold one in each place of them."""
        check = Check("hedge", "a list of answers is right wherever the gold one stands in it")
        told = Check("one of a list", "a list of answers is right where the gold one stands in one place", told=True)
        # Where no two answers are equal (programs), none is guessed beside another.
        golds = [one for one in self.few if one.answer is not None and self.verifier.votes]
        for question in golds[:: max(1, math.ceil(len(golds) / HEDGED))]:
            gold, forms = str(question.answer), self._forms(question)
            others = [str(one.answer) for one in golds if one.answer != gold]
            wrong = attacks.guesses(gold, question.text, others) if forms else []
            if not wrong or any(self.trial.equal(one, gold, question) for one in wrong):
                continue
            lists = [[form(one) for one in places] for places in attacks.hedges(gold, wrong) for form in forms]
            for places in (*lists, *attacks.statements(gold, wrong, forms)):
                right = [text for text in places if self.trial.right(text, question)]
                text = right[-1] if right else places[0]
                check.count(len(right) < 2, question, text, f"right with the gold answer in {len(right)} places")
                told.count(not right, question, text, "right")
            if (counted := attacks.counted_up(gold)) is not None:
                for form in forms:
                    self.trial.must(check, form(counted), question, right=False)
        return check, told

    def _long(self) -> tuple[Check, Check]:
        """Texts longer than a verifier may have been tried on, without an answer and with one at their end."""
        senseless = Check("long garbage", "a long text is right without the answer")
        buried = Check("answer after a long text", "the gold answer is not right where much stands before it")
        for number, question in enumerate(self.few[:KEPT]):
            gold, forms = str(question.answer), []
            if question.answer is not None and self.verifier.votes:
                forms = self._forms(question)
            forms = [form for form in forms if self.trial.right(f"{OPENING}\n{form(gold)}", question)][:2]
            wrong = wrong_variants(gold, question.text)[:1]
            sizes = LONG[:1] if number else LONG  # a verifier may take their square in time
            for text in (text for size in sizes for text in attacks.long_texts(size) if not _holds(text, question)):
                self.trial.must(senseless, text, question, right=False)
                for form in forms:
                    for answer in wrong:
                        self.trial.must(senseless, f"{text}\n{form(answer)}", question, right=False)
                    self.trial.must(buried, f"{text}\n{form(gold)}", question, right=True)
        return senseless, buried

    def _batch(self) -> Check:
        """Many at once, as a run asks: the verdicts of each alone, in their order."""
        check = Check("batch", "another verdict among many than alone")
        items: list[tuple[str, Question]] = []
        for question in self.few[: KEPT if self.verifier.uses_every_core else HEDGED]:
            stated = [form(str(question.answer)) for form in self._forms(question)[:1]] if question.answer else []
            items += [(text, question) for text in (*stated, question.solution or "", "banana")]
        alone = [self.trial.judge(text, question) for text, question in items]
        many = self.trial.ask(lambda: self.verifier.score_many(items), *items[0][::-1]) if items else []
        if many is not None and len(many) != len(items):
            check.count(False, items[0][1], items[0][0], f"{len(many)} verdicts for {len(items)} texts")
        elif many is not None:
            for (text, question), one, other in zip(items, alone, many, strict=True):
                if one is not None:
                    check.count(one == other, question, text, f"{said(one)} alone, {said(other)} among {len(items)}")
        return check

    def _forms(self, question: Question) -> list[Callable[[str], str]]:
        """The ways to state an answer that this verifier reads."""
        if question.id not in self.forms:
            self.forms[question.id] = list(self._read_forms(question))
        return self.forms[question.id]

    def _read_forms(self, question: Question) -> Iterator[Callable[[str], str]]:
        gold = str(question.answer)
        ways: list[Callable[[str], str]] = [form.format for form in FORMS]
        if as_calls(gold) != gold:
            ways.append(as_calls)
        if question.solution is not None and gold in question.solution:
            before, _, after = question.solution.rpartition(gold)
            if not self.trial.right(f"{before}banana{after}", question):  # else its answer stands elsewhere
                ways.insert(0, lambda answer: f"{before}{answer}{after}")
        for way in ways:
            if self.trial.right(way(gold), question):
                yield way

    def _normal(self) -> list[tuple[Question, str]]:
        found: dict[str, Question] = {}
        for question in self.few:
            if question.answer is None:
                continue
            for answer in (question.answer, *wrong_variants(question.answer, question.text)[:1]):
                normal = self.trial.normalise(answer, question)
                if normal is not None:
                    found.setdefault(normal, question)
        return [(question, answer) for answer, question in found.items()][:PAIRED]

    def _symmetric(self) -> Check:
        check = Check("symmetric", "a equals b and b does not equal a, or a not itself")
        for (question, a), (_, b) in itertools.combinations_with_replacement(self._normal(), 2):
            there, back = self.trial.same(a, b, question), self.trial.same(b, a, question)
            if there is not None and back is not None:
                fine = there == back and (a != b or there)
                check.count(fine, question, f"{a} and {b}", f"{there} one way, {back} the other")
        return check

    def _votes(self) -> Check:
        """A vote joins what the verdict calls equal, and nothing else; the same answer given twice is one."""
        check = Check("votes", "a vote and a verdict differ on whether two answers are one")
        answers = self._normal()
        for (question, a), (_, b) in itertools.combinations(answers, 2):
            self._joined(check, self.trial.group([a, b], question), question, a, b, self.trial.same(a, b, question))
        whole = [answer for _, answer in answers]
        classes = self.trial.group([*whole, *whole], answers[0][0]) if answers else None
        for place, (question, a) in enumerate(answers):
            self._joined(check, self.trial.group([a, a], question), question, a, a, True)
            if classes is not None:
                self._joined(check, [classes[place], classes[place + len(whole)]], question, a, a, True)
                for other in range(place):  # among many, what is joined must still be equal
                    if classes[place] == classes[other]:
                        same = self.trial.same(a, whole[other], question)
                        check.count(same is not False, question, f"{a} and {whole[other]}", "one among many")
            for form in self._forms(question)[:1]:
                verdict = self.trial.judge(form(a), question)
                gold = self.trial.normalise(str(question.answer), question)
                if verdict is not None and verdict.answer is not None and gold is not None:
                    equal = self.trial.same(verdict.answer, gold, question)
                    check.count(equal is None or verdict.correct == equal, question, a, said(verdict))
        return check

    @staticmethod
    def _joined(
        check: Check, classes: list[int | None] | None, question: Question, a: str, b: str, same: bool | None
    ) -> None:
        if classes is not None and same is not None:
            joined = len(set(classes)) == 1
            check.count(joined == same, question, f"{a} and {b}", "one" if joined else "two")


def _spread(questions: Sequence[Question], most: int) -> list[Question]:
    """At most so many questions, evenly over all."""
    return list(questions[:: max(1, math.ceil(len(questions) / most))])


def _holds(text: str, question: Question) -> bool:
    """Whether a senseless text happens to say the answer."""
    return bool(question.answer) and str(question.answer).strip() in text

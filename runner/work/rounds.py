"""How many samples of each question a stage wants: all at once, or what a labeler asks for in between.

    wanted = Wanted.of_stage(work)
    wanted.growing(questions, held)      # for an engine that takes samples while it draws (`Engine.grows`)
    for questions, upto in wanted.rounds(questions, held):
        ...                              # draw their samples below `upto` that are not in `held`, and put them there

An engine that takes samples while it draws is given what a vote asks for as soon as its question's samples are there:
no vote waits for another one. For any other engine there are rounds, of all questions.

A round brings the questions whose votes wait for the fewest samples to that number, each in one request: a prompt is
read once for all that its vote asks for, nothing is drawn that no vote asked for, and there are as many rounds as
samples of a question at most. Where an engine draws several rows for the price of one (`Engine.least_rows`), a smaller
round takes in those that wait for more, and goes further: what a vote did not ask for is not looked at. So rounds may
be cut in any way, by a kill, by several processes or by samples that others drew: the votes, and what is kept of the
samples, are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nsd.plugins.api import Completion, Labeler, Question, Verifier, without_truth
from nsd.plugins.errors import StageFailed
from nsd.runner.plan.jobs import ToSample
from nsd.runner.work.failures import without_failed_text
from nsd.runner.work.jobs import make_plugin
from nsd.runner.work.remembering import Remembering

Place = tuple[str, int]  # question id and sample number
Held = Mapping[Place, Completion]


class Wanted:
    """How many samples of a question a stage wants, told what there is."""

    def __init__(self, labeler: Labeler | None, verifier: Verifier | None, n: int, least_rows: int) -> None:
        """`labeler` None wants `n` of every question, else it reads answers with `verifier`."""
        self._labeler, self.n, self._least_rows = labeler, n, least_rows
        self._verifier = Remembering(verifier or Verifier())

    @classmethod
    def of_stage(cls, work: ToSample) -> Wanted:
        """What a sample stage wants."""
        if work.asking is None:
            return cls(None, None, work.sampling.n, work.least_rows)
        labeler, verifier = make_plugin(work.asking.labeler, Labeler), make_plugin(work.asking.verifier, Verifier)
        return cls(labeler, verifier, work.sampling.n, work.least_rows)

    def of(self, question: Question, held: Held) -> int:
        """Samples that the question's vote has asked for so far, or stands on where there are as many."""
        if self._labeler is None:
            return self.n
        there: list[Completion] = []
        while len(there) < self.n and (one := held.get((question.id, len(there)))) is not None:
            there.append(without_failed_text(one))
        return min(self.n, self._labeler.asked(without_truth(question), there, self._verifier))

    def lacks(self, questions: Sequence[Question], held: Held) -> bool:
        """Whether some of the questions want samples that are not there."""
        return any(_missing(question, self.of(question, held), held) for question in questions)

    def rounds(self, questions: Sequence[Question], held: Held) -> Iterator[tuple[Sequence[Question], int]]:
        """Questions and the number of samples to bring them to; `held` is looked at anew after each round.

        Without a labeler to ask there is one round, of all questions. A round that brings nothing is the last one.
        """
        if self._labeler is None:
            if self.lacks(questions, held):
                yield questions, self.n
            return
        waiting = list(questions)
        there = -1
        while there < len(held):
            there = len(held)
            wanted = {question.id: self.of(question, held) for question in waiting}
            waiting = [question for question in waiting if _missing(question, wanted[question.id], held)]
            if not waiting:
                return
            yield self._round(waiting, wanted, held)

    def growing(self, questions: Sequence[Question], held: Held) -> Growing:
        """What the questions want, for an engine that takes samples while it draws."""
        return Growing(self, questions, held)

    def _round(
        self, waiting: Sequence[Question], wanted: Mapping[str, int], held: Held
    ) -> tuple[Sequence[Question], int]:
        for upto in sorted({wanted[question.id] for question in waiting}):
            taken = [question for question in waiting if wanted[question.id] <= upto]
            rows = sum(_missing(question, upto, held) for question in taken)
            if rows >= self._least_rows:
                return taken, upto
        return taken, min(self.n, upto + max(0, self._least_rows - rows) // len(taken))

    def chosen(self, questions: Sequence[Question], held: Held) -> list[Completion]:
        """The samples that were asked for, in question order then sample order.

        Raises StageFailed where the engine left some out.
        """
        wanted = {question.id: self.of(question, held) for question in questions}
        if missing := sum(_missing(question, wanted[question.id], held) for question in questions):
            raise StageFailed(f"the engine returned no completion for {missing} of {sum(wanted.values())} requests")
        return [held[question.id, sample] for question in questions for sample in range(wanted[question.id])]


class Growing:
    """See GrowingSamples. A question's vote is asked when all that it asked for is there, whatever others wait for."""

    def __init__(self, wanted: Wanted, questions: Sequence[Question], held: Held) -> None:
        self._wanted, self._held = wanted, held
        self._questions = {question.id: question for question in questions}
        self._told: dict[Place, Completion] = {}
        self._open: dict[str, int] = {}  # samples that were asked for and are not told yet

    def first(self, question_id: str) -> list[int]:
        """See GrowingSamples."""
        return self._ask(self._questions[question_id])

    def further(self, completion: Completion) -> list[int]:
        """See GrowingSamples."""
        name = completion.question_id
        self._told[name, completion.sample] = completion
        self._open[name] -= 1
        return self._ask(self._questions[name]) if self._open[name] == 0 else []

    def _ask(self, question: Question) -> list[int]:
        places = [(question.id, sample) for sample in range(self._wanted.n)]
        found = ((place, self._told.get(place) or self._held.get(place)) for place in places)
        there = {place: one for place, one in found if one is not None}
        upto = self._wanted.of(question, there)
        missing = [sample for sample in range(upto) if (question.id, sample) not in there]
        self._open[question.id] = len(missing)
        if not missing:  # it is not asked again
            for sample in range(upto):
                self._told.pop((question.id, sample), None)
        return missing


def _missing(question: Question, upto: int, held: Held) -> int:
    return sum((question.id, sample) not in held for sample in range(upto))

"""The questions of a plan: read and split once, hashed, and looked at for gold answers that nobody can read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nsd.plugins.api import Dataset, Question, Shown, Splits, Verifier, without_truth
from nsd.plugins.errors import InputError
from nsd.plugins.large import Parts, changed, where
from nsd.plugins.words import hint
from nsd.runner.plan.keys import block_job, block_key, completed
from nsd.runner.plan.validation import Watched, choose
from nsd.runner.spec.model import Block, Condition, Experiment
from nsd.runner.store.workspace import ListDigest

SMOKE_QUESTIONS = 16
TRUE_ANSWERS = ("labeled", "unlabeled")  # the sources whose examples come with them


@dataclass(frozen=True)
class Digests:
    """What some questions are known by: `content` is of all that they hold, `texts` of their ids and texts alone.

    `answered` of them have an answer.
    """

    content: str
    texts: str
    answered: int

    @classmethod
    def of(cls, questions: Sequence[Question]) -> Digests:
        """Those of some questions, each of which is read once."""
        from nsd.plugins.datasets.split import data_hash

        texts, answered = ListDigest(), 0

        def passing() -> Iterator[Question]:
            nonlocal answered
            for one in questions:
                texts.add([one.id, one.text])
                answered += one.answer is not None
                yield one

        content = data_hash(passing())
        return cls(content, texts.digest(), answered)


class Questions:
    """What a plan knows of its data. `data` holds questions by content hash, `notes` what a person should know."""

    def __init__(self, experiment: Experiment, smoke: bool, notes: list[str]) -> None:
        self.experiment, self.smoke, self.notes = experiment, smoke, notes
        self.data: dict[str, Sequence[Question]] = {}
        self._whole: dict[str, Splits] = {}
        self._splits: dict[str, Splits] = {}
        self._watched: Watched | None = None
        # By the identity of a list, which is kept beside what was made of it: a list that is gone could leave its
        # number to another one.
        self._cut: dict[int, tuple[Sequence[Question], Sequence[Question]]] = {}
        self._read: set[str] = set()
        self._digests: dict[int, tuple[Sequence[Question], Digests]] = {}
        self._blind: dict[int, tuple[Sequence[Question], Sequence[Question]]] = {}
        self._answered: dict[int, tuple[Sequence[Question], Sequence[Question]]] = {}
        self._alone: dict[int, Sequence[Question]] = {}
        self._named: dict[tuple[int, ...], Sequence[Question]] = {}

    def splits(self, condition: Condition) -> Splits:
        """The parts of a condition's dataset, without what validation takes."""
        cache_key = repr(block_job(condition.data))
        if cache_key not in self._splits:
            splits = (
                self.watched.without(self.whole(condition)) if self.experiment.validation else self.whole(condition)
            )
            if self.smoke:
                cut = SMOKE_QUESTIONS
                splits = Splits(splits.labeled[:cut], splits.unlabeled[:cut], splits.test[:cut])
            self._splits[cache_key] = splits
        return self._splits[cache_key]

    def whole(self, condition: Condition) -> Splits:
        """The parts of a condition's dataset, read once."""
        from nsd.plugins.datasets.split import split

        block = condition.data
        cache_key = repr(block_job(block))
        if cache_key not in self._whole:
            try:
                dataset = block.make()
                splits, report = split(dataset.pools(), dataset.config.split)
            except InputError as error:
                raise InputError(f"{self._of_evaluation(condition)}{error}") from error
            self.notes.extend(note for note in report.notes() if note not in self.notes)
            self._whole[cache_key] = splits
        return self._whole[cache_key]

    def _of_evaluation(self, measured: Condition) -> str:
        """`evals.NAME: ` where a condition is one as a named evaluation with data of its own measures it."""
        name, _, label = measured.name.partition("@")
        condition = self.experiment.conditions.get(name)
        if condition is None or not condition.evals or measured.data == condition.data:
            return ""
        return f"evals.{label or condition.evals[0].name}: "

    @property
    def watched(self) -> Watched:
        """What the trainings of the spec are watched by, whichever of its conditions are planned."""
        if self._watched is None:
            self._watched = choose(self.experiment, self.whole)
        return self._watched

    def validation(self, condition: Condition) -> Sequence[Question]:
        """The questions that a condition's trainings are watched by."""
        questions = self.watched.of(condition)
        cut = questions[:SMOKE_QUESTIONS] if self.smoke else questions
        return self._cut.setdefault(id(questions), (questions, cut))[1]

    def evaluated(self, condition: Condition) -> Sequence[Question]:
        """The questions that a condition's evaluation asks: those of the test split, or of the validation.

        Raises InputError where there is none, and where no training on the condition's data is watched.
        """
        if not condition.eval.cls.on_validation:
            self.check_asked(condition)
            return self.splits(condition).test
        if not self.watched.watches(condition):
            raise InputError(
                f"condition {condition.name!r}: eval {condition.eval.use} asks the validation's questions, and no "
                "condition with these data trains"
            )
        return self.validation(condition)

    def check_asked(self, condition: Condition) -> None:
        """Raises InputError where a condition's data have no test question."""
        if not self.whole(condition).test:
            where = self._of_evaluation(condition) or f"condition {condition.name!r}: "
            raise InputError(f"{where}{condition.data.use} has no test question: nothing could be measured")

    def without_answers(self, condition: Condition, questions: Sequence[Question]) -> Sequence[Question]:
        """A part of the split as data of its own, in which no truth lies; so a corrected answer is none of it."""
        if id(questions) not in self._blind:
            shown = self.shown(condition)
            self._blind[id(questions)] = questions, changed(questions, partial(without_truth, shown=shown))
        return self._blind[id(questions)][1]

    def answered(self, questions: Sequence[Question]) -> Sequence[Question]:
        """Those of some questions that have an answer."""
        if id(questions) not in self._answered:
            known = self.digests(questions).answered
            some = where(questions, lambda one: one.answer is not None) if known else []
            self._answered[id(questions)] = questions, some
        return self._answered[id(questions)][1]

    def alone(self, question: Question) -> Sequence[Question]:
        """A question as data of its own."""
        return self._alone.setdefault(id(question), [question])

    def named(self, condition: Condition, ids: Sequence[str]) -> Sequence[Question]:
        """Test questions of a condition by their ids, in the data's order: the same ones are the same, however a spec
        lists them. Raises InputError for an id there is not.
        """
        there = {question.id: question for question in self.whole(condition).test}
        if absent := [one for one in ids if one not in there]:
            raise InputError(
                f"condition {condition.name!r}: eval.questions names {absent[0]!r}, and none of its {len(there)} test "
                f"questions has this id{hint(absent[0], there)}"
            )
        wanted = set(ids)
        chosen = [one for name, one in there.items() if name in wanted][: SMOKE_QUESTIONS if self.smoke else None]
        return self._named.setdefault(tuple(map(id, chosen)), chosen)

    def shown(self, condition: Condition) -> Shown:
        """What examples without the true answer keep of their questions."""
        return condition.data.make().shown()

    def check_gold(self, condition: Condition) -> None:
        """Note the gold answers that the condition's verifiers cannot read."""
        splits = self.splits(condition)
        if not self.digests(splits.unlabeled).answered:  # nothing to read
            splits = replace(splits, unlabeled=[])
        if self.experiment.validation is not None and condition.train_on:
            splits = Splits(Parts(splits.labeled, self.validation(condition)), splits.unlabeled, splits.test)
        self._check_gold_of(condition.data, condition.verifier, splits)
        if condition.train_verifier is not None:
            splits = self.splits(condition)
            labeled, unlabeled = (getattr(splits, one) if one in condition.train_on else [] for one in TRUE_ANSWERS)
            self._check_gold_of(condition.data, condition.train_verifier, Splits(labeled, unlabeled, []), training=True)

    def check_evaluation(self, label: str | None, condition: Condition, measured: Condition) -> None:
        """Note what is the matter with the questions that an evaluation asks, where they or their verifier are its own.

        `measured` is the condition as the evaluation `label` measures it.
        """
        if label is None or (measured.data, measured.verifier) == (condition.data, condition.verifier):
            return  # the condition's own, which were looked at with what it trains on
        before = len(self.notes)
        asked = Splits([], [], self.splits(measured).test)
        self._check_gold_of(measured.data, measured.verifier, asked, of_test=True)
        self.notes[before:] = [f"evals.{label}: {note}" for note in self.notes[before:]]

    def _check_gold_of(
        self,
        data: Block[Dataset],
        block: Block[Verifier],
        splits: Splits,
        training: bool = False,
        of_test: bool = False,
    ) -> None:
        from nsd.plugins.verifiers.gold import unreadable_notes

        sizes = [len(splits.labeled), len(splits.unlabeled)] if training else "test" if of_test else None
        used = completed([block_key(data), block_key(block), sizes])
        pair = json.dumps(used, sort_keys=True, default=str)
        if pair not in self._read:
            self._read.add(pair)
            found = unreadable_notes(splits, block.make(), training)
            self.notes.extend(note for note in found if note not in self.notes)

    def keep(self, questions: Sequence[Question]) -> str:
        """The content hash of some questions, which workers are to read."""
        content = self.digests(questions).content
        self.data[content] = questions
        return content

    def digests(self, questions: Sequence[Question]) -> Digests:
        """What some questions are known by, of which they are read once."""
        if id(questions) not in self._digests:
            self._digests[id(questions)] = questions, Digests.of(questions)
        return self._digests[id(questions)][1]

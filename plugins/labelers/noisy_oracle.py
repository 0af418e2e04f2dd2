"""`noisy_oracle`: the true labels, of which an exact share is replaced by wrong ones. No model is needed.

    labeler: {use: noisy_oracle, accuracy: 0.75}

The plugin answers what a vote cannot: how accurate must pseudo-labels be for training on them to help? Exactly
round((1 - accuracy) * n) of n questions get a wrong label, chosen by a seeded order of the questions. So the wrong
ones at accuracy 0.9 are among those at 0.8, with the same labels. A wrong label is another question's gold answer that
the verifier does not call equal.

The target is the gold solution, for a wrong label with its final answer replaced: the steps stay right and only
the conclusion is wrong. Real pseudo-labels are wrong along the way too, so this is noise of the label alone.
`kept` is always true; `confidence` is the accuracy asked for; there are no votes (votes and k are 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from nsd.plugins.api import Completion, Labeler, PluginConfig, PseudoLabel, Question, Verifier
from nsd.plugins.errors import InputError
from nsd.plugins.registry import plugin
from nsd.plugins.seeds import stream


@plugin("labeler", "noisy_oracle")
class NoisyOracle(Labeler):
    """True labels corrupted to a wanted accuracy."""

    needs_model = False
    sampling_fields = ()

    class Config(PluginConfig):
        accuracy: float = Field(default=1.0, ge=0, le=1, description="Share of the labels that are right.")

    config: Config

    def sampling(self) -> None:
        """No samples are needed."""
        return None

    def label(
        self,
        questions: Sequence[Question],
        samples: Mapping[str, Sequence[Completion]],
        verifier: Verifier,
        seed: int,
    ) -> list[PseudoLabel]:
        """One label per question, in order. Raises InputError where a question's true answer is not known."""
        gold = [_gold(question, verifier) for question in questions]
        corrupted = self._corrupted(len(questions), seed)
        labels = []
        for index, question in enumerate(questions):
            answer, target = gold[index], question.solution
            if index in corrupted:
                wrong = self._wrong_answer(index, questions, gold, verifier, seed)
                answer = gold[wrong]
                target = None if target is None else _replace_answer(question, str(questions[wrong].answer), verifier)
            labels.append(
                PseudoLabel(
                    question_id=question.id,
                    label=answer,
                    target=target,
                    confidence=self.config.accuracy,
                    votes=0,
                    k=0,
                    kept=True,
                )
            )
        return labels

    def _corrupted(self, n: int, seed: int) -> set[int]:
        import numpy as np

        order = np.random.default_rng(stream(seed, "corrupted")).permutation(n)
        return set(order[: round((1 - self.config.accuracy) * n)].tolist())

    def _wrong_answer(
        self, index: int, questions: Sequence[Question], gold: Sequence[str], verifier: Verifier, seed: int
    ) -> int:
        """Position of another question whose answer is a different one."""
        import numpy as np

        # Uniform over the other questions, so a frequent answer is a frequent mistake. Nearly always the first
        # draw differs; the permutation is for pools in which almost all answers are the same.
        rng = np.random.default_rng(stream(seed, "wrong", questions[index].id))
        for first_draws in (True, False):
            draws = rng.integers(len(gold), size=16) if first_draws else rng.permutation(len(gold))
            for candidate in draws.tolist():
                if not verifier.same(gold[candidate], gold[index]):
                    return int(candidate)
        raise InputError(
            f"noisy_oracle: every question has the answer {gold[index]!r}, so no wrong one can be drawn; "
            "use more unlabeled questions"
        )


def _gold(question: Question, verifier: Verifier) -> str:
    answer = None if question.answer is None else verifier.normalise(question.answer)
    if answer is None:
        what = "no true answer" if question.answer is None else f"an answer that cannot be read: {question.answer!r}"
        raise InputError(
            f"noisy_oracle: the unlabeled question {question.id} ({question.text[:60]!r}) has {what}; "
            "take unlabeled questions with answers (`missing_answer: drop` in the data block leaves the others out)"
        )
    return answer


def _replace_answer(question: Question, wrong: str, verifier: Verifier) -> str:
    """The gold solution with its final answer replaced: the last place where that changes what is extracted."""
    solution, wanted = str(question.solution), verifier.normalise(wrong)
    for right in (str(question.answer), str(verifier.normalise(str(question.answer)))):
        end = len(solution)
        while (start := solution.rfind(right, 0, end)) >= 0:
            changed = solution[:start] + wrong + solution[start + len(right) :]
            found = verifier.extract(changed)
            if found is not None and wanted is not None and verifier.same(found, wanted):
                return changed
            end = start + len(right) - 1
    raise InputError(
        f"noisy_oracle: cannot put a wrong answer into the gold solution of question {question.id} "
        f"({question.text[:60]!r}): its answer {question.answer!r} does not stand there as the final one; "
        "`nsd validate --gold` lists such rows"
    )

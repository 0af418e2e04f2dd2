r"""`steps`: the verdict of `numeric`, and for a wrong completion a sentence on the first step that is wrong.

    data: {use: wordmath, split: {labeled: 800, test: 1200}}
    verifier: steps

    Needed: 9 * 10 = 90
    Missing: 90 - 37 = 52            # feedback: Step 2 is wrong: 90 - 37 is 53, not 52.
    #### 52

A step is a `NUMBER OPERATOR NUMBER = NUMBER` of whole numbers, wherever it stands, as the solutions of `wordmath` have
them. Its sum is looked at first. Where the question has a solution (the gold one of a labeled question, the voted text
of a pseudo-labeled one), a step must be one of that solution's too, in any order; which one it should be is not said.
Feedback belongs to a teacher or to the next attempt, never to a test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from nsd.plugins.api import Question, Score
from nsd.plugins.registry import plugin
from nsd.plugins.verifiers.numeric import Numeric

_STEP = re.compile(r"(?<![\w.])(\d{1,9}) ?([-+*/]) ?(\d{1,9}) ?= ?(-?\d{1,12}+)(?!\w|\.\d)")


@plugin("verifier", "steps")
class Steps(Numeric):
    """The final number, with feedback by steps."""

    version = 1
    gives_feedback = True

    def score(self, completion: str, question: Question) -> Score:
        """Judge one completion; one that is wrong comes with feedback."""
        score = super().score(completion, question)
        return (
            score if score.correct else replace(score, feedback=_feedback(completion, score.answer, question.solution))
        )


@dataclass(frozen=True)
class _Step:
    left: int
    operator: str
    right: int
    result: int

    @property
    def said(self) -> str:
        return f"{self.left} {self.operator} {self.right}"

    @property
    def asked(self) -> tuple[str, tuple[int, ...]]:
        """What is worked out: the same for 6 * 3 and 3 * 6."""
        numbers = (self.left, self.right)
        return self.operator, tuple(sorted(numbers)) if self.operator in "+*" else numbers

    @property
    def true(self) -> str:
        """The right result as text."""
        if self.operator != "/":
            found = {"+": self.left + self.right, "-": self.left - self.right, "*": self.left * self.right}
            return str(found[self.operator])
        if self.right == 0:
            return "no number"
        whole, rest = divmod(self.left, self.right)
        return str(whole) if rest == 0 else f"no whole number ({whole} and a rest of {rest})"


def steps_of(text: str) -> list[_Step]:
    """The steps of a text, in order. Linear in the text."""
    return [
        _Step(int(left), operator, int(right), int(result)) for left, operator, right, result in _STEP.findall(text)
    ]


def _feedback(completion: str, answer: str | None, solution: str | None) -> str:
    steps = steps_of(completion)
    for number, step in enumerate(steps, 1):
        if step.true != str(step.result):
            return f"Step {number} is wrong: {step.said} is {step.true}, not {step.result}."
    right = {step.asked for step in steps_of(solution or "")}
    if right:
        for number, step in enumerate(steps, 1):
            if step.asked not in right:
                return f"Step {number} is wrong: {step.said} does not belong to this question."
    if answer is None:
        return "There is no answer: end with #### and the number."
    if steps and answer != str(steps[-1].result):
        return f"The answer {answer} is not the result of the last step, {steps[-1].result}."
    if right - {step.asked for step in steps}:
        return "A step is missing." if steps else "There is no step: write each as `19 - 4 = 15`."
    return "The answer is wrong."
